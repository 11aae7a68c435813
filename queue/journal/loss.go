package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// markName is a file beside the journal that says that there is one: without
// it, a journal that somebody removed would look like a first start.
const markName = "buried.mark"

const markText = "A journal of buried jobs, " + fileName + ", belongs beside this file.\n"

// lost says whether dir had a journal, and has none.
func lost(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, fileName))
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, markName))
	return err == nil
}

// mark says that dir has a journal from now on.
func mark(dir string) error {
	path := filepath.Join(dir, markName)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.WriteFile(path, []byte(markText), fileMode)
}

// sayLost counts and logs a journal that is not where it was.
func (j *Journal) sayLost() {
	j.rebuilt.Add(1)
	j.log.Error("journal of buried jobs is gone, it is begun anew: the reasons of jobs buried before are lost, the jobs are not",
		"file", filepath.Join(j.dir, fileName))
}

// Check looks whether the journal's file is still the one that is open. When it
// was removed or replaced, which nothing else would show before the process
// ends, the journal goes on with what is there now, or begins anew; Rebuilt
// counts it. The error says why that cannot be done; what was there is used on.
func (j *Journal) Check() error {
	j.work.Lock()
	defer j.work.Unlock()
	if j.st == nil {
		return nil
	}
	there, err := os.Stat(filepath.Join(j.dir, fileName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	if err == nil {
		open, err := j.st.file.Stat()
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if os.SameFile(open, there) {
			return nil
		}
	}
	st, err := openStore(j.dir)
	if isDamage(err) {
		st, err = j.anew(err)
	}
	if err != nil {
		return err
	}
	old := j.st
	j.st = st
	j.sayLost()
	return old.close()
}
