package job

import (
	"encoding/hex"
	"fmt"
	"strings"
)

const topic = "com.example.app"

const testToken = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"

const tok = `"token":"` + testToken + `"`

func jobText(extra string) string { return `{"token":"` + testToken + `","title":"t"` + extra + `}` }

func manyTokens(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = hex.EncodeToString(fmt.Appendf(nil, "%032d", i))
	}
	return tokens
}

func fanOutText(tokens []string, extra string) string {
	return `{"tokens":["` + strings.Join(tokens, `","`) + `"],"title":"t"` + extra + `}`
}
