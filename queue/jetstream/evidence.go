package jetstream

import (
	"fmt"
	"slices"
	"strings"
)

// What the server says of itself is found in its log by the format that its code gives,
// which has to be the whole of it. Never by the text of a line: there stands also what
// strangers have sent, and in the formats of lines about clients what they call
// themselves.

// ourStreams are those whose faults matter: who has the token may make others.
var ourStreams = [...]string{jobsStream, buriedStream}

func ours(stream any) bool { return slices.Contains(ourStreams[:], fmt.Sprint(stream)) }

// writeFault finds in a line of the server's log why it can store nothing from now on
// (nats-server: filestore.go, fileStore.setWriteErr; stream.go, setWriteErrLocked, and
// where JetStream is disabled).
func writeFault(format string, args []any) (why string, ok bool) {
	switch format {
	case "JetStream stream '%s > %s' critical write error: %v":
		ok = len(args) == 3 && ours(args[1])
	case "Filesystem permission denied while writing msg, disabling JetStream: %v":
		ok = len(args) == 1
	default:
		for _, name := range ourStreams {
			ok = ok || len(args) == 1 && format == "Filestore ["+name+"] Critical write error: %v"
		}
	}
	if !ok {
		return "", false
	}
	return fmt.Sprint(args[len(args)-1]), true
}

// readFault finds in a line of the server's log why it cannot read a job. It serves
// none of that tube then, and looks at its files only when it starts (nats-server:
// consumer.go, loopAndGatherMsgs).
func readFault(format string, args []any) (why string, ok bool) {
	const begins = "Received an error looking up message "
	switch format {
	case begins + "with sequence %d for consumer '%s > %s > %s': %v":
		ok = len(args) == 5
	case begins + "for consumer '%s > %s > %s': %v":
		ok = len(args) == 4
	}
	if !ok || !ours(args[len(args)-3]) {
		return "", false
	}
	return strings.TrimPrefix(fmt.Sprintf(format, args...), begins), true
}

// writeFaultOf says whether an answer of the server about its health says that it
// cannot write one of our streams.
func writeFaultOf(health string) bool {
	for _, name := range ourStreams {
		if strings.HasPrefix(health, "JetStream stream '$G > "+name+"' write error: ") {
			return true
		}
	}
	return false
}
