package flood

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		level  slog.Level
		atOnce int
		want   int
	}{
		{slog.LevelInfo, 0, leastBurst},
		{slog.LevelInfo, 700, 700},
		{slog.LevelDebug, 0, 5000},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			l := New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tt.level})), tt.atOnce)
			for i := range 5000 {
				l.Log(slog.LevelWarn, "often", "i", i)
			}
			if n := strings.Count(out.String(), "msg=often"); n != tt.want {
				t.Errorf("%d lines, want %d", n, tt.want)
			}
			if l.Log(slog.LevelError, "other"); !strings.Contains(out.String(), "level=ERROR msg=other") {
				t.Error("a line of another kind is lost")
			}
			time.Sleep(time.Second)
			out.Reset()
			for range perSecond {
				l.Log(slog.LevelWarn, "often")
			}
			most := max(leastBurst, tt.atOnce)
			if text := out.String(); strings.Count(text, "level=WARN msg=often") != perSecond ||
				strings.Count(text, fmt.Sprintf("suppressed=%d", 5000-most)) != 1 || strings.Count(text, "suppressed") != 1 {
				t.Errorf("a second later:\n%s", text)
			}
		})
	}
}
