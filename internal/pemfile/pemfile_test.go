package pemfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// sample is a certificate, its key, and both as PEM.
func sample(t testing.TB) (cert, key, text []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Apple Push Services: com.example.app"}, NotAfter: time.Now().Add(time.Hour)}
	if cert, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		t.Fatal(err)
	}
	text = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return cert, key, text
}

// utf16Of is text as UTF-16.
func utf16Of(text string, order binary.AppendByteOrder) (out []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, unit)
	}
	return out
}

// What editors, mails, shells and environment variables do to a file is undone.
func TestMangled(t *testing.T) {
	t.Parallel()
	cert, key, good := sample(t)
	text := string(good)
	replace := func(pairs ...string) []byte { return []byte(strings.NewReplacer(pairs...).Replace(text)) }
	for name, data := range map[string][]byte{
		"as it is":                 good,
		"BOM":                      []byte("\ufeff" + text),
		"BOM of a file appended":   replace("-----BEGIN PRIV", "\ufeff-----BEGIN PRIV"),
		"CRLF":                     replace("\n", "\r\n"),
		"CR":                       replace("\n", "\r"),
		"no line end":              []byte(strings.TrimSpace(text)),
		"glued":                    replace("-----\n-----BEGIN", "----------BEGIN"),
		"indented":                 []byte("  " + strings.ReplaceAll(text, "\n", "\n  ")),
		"tabs":                     []byte("\t" + strings.ReplaceAll(text, "\n", "\n\t")),
		"blanks at the ends":       replace("\n", "  \n"),
		"one line":                 replace("\n", " "),
		"one line, nothing":        replace("\n", ""),
		`\n`:                       replace("\n", `\n`),
		`\r\n`:                     replace("\n", `\r\n`),
		`\n of \n`:                 replace("\n", `\\n`),
		"JSON":                     []byte(`{"pem":"` + strings.NewReplacer("\n", `\n`, "/", `\/`).Replace(text) + `"}`),
		"four dashes":              replace("-----BEGIN", "----BEGIN"),
		"dashes of word processor": replace("-----", "—–"),
		"UTF-16, mark":             utf16Of("\ufeff"+text, binary.LittleEndian),
		"UTF-16":                   utf16Of(text, binary.LittleEndian),
		"UTF-16BE, mark":           utf16Of("\ufeff"+text, binary.BigEndian),
		"UTF-16BE":                 utf16Of(text, binary.BigEndian),
		"base64":                   []byte(base64.StdEncoding.EncodeToString(good)),
		"base64 for URLs, quoted":  []byte(`"` + base64.RawURLEncoding.EncodeToString(good) + "\"\n"),
		"base64 of DER":            append([]byte(base64.StdEncoding.EncodeToString(cert)+"\n"), text[strings.Index(text, "-----BEGIN PRIV"):]...),
		"comments":                 []byte("# begins with -----BEGIN CERTIFICATE-----\n" + text + "  # the end\n"),
		"text":                     []byte("Bag Attributes\n    friendlyName: x\n" + text + "bye\n"),
	} {
		blocks, err := Parse(data)
		if name == "base64 of DER" { // what stands before the PEM is text
			blocks = append([]Block{{Block: pem.Block{Type: "CERTIFICATE", Bytes: cert}}}, blocks...)
		}
		if err != nil || len(blocks) != 2 || blocks[0].Type != "CERTIFICATE" || !bytes.Equal(blocks[0].Bytes, cert) ||
			blocks[1].Type != "PRIVATE KEY" || !bytes.Equal(blocks[1].Bytes, key) {
			t.Errorf("%s: %d blocks, %v", name, len(blocks), err)
		}
	}
}

// A block that cannot be read is told with its line; none is passed over.
func TestDamaged(t *testing.T) {
	t.Parallel()
	_, key, good := sample(t)
	text, secret := string(good), base64.StdEncoding.EncodeToString(key)
	lines := strings.SplitAfter(text, "\n")
	n := strings.Count(text[:strings.Index(text, "-----BEGIN PRIV")], "\n") // lines of the certificate
	at := func(i int, line string) string {
		return strings.Join(lines[:i], "") + line + strings.Join(lines[i+1:], "")
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a line with a stranger": {at(2, "MII*"+lines[2][4:]), "is damaged: the CERTIFICATE that begins at line 1 cannot be decoded, line 3 is not base64"},
		"a line of HTML":         {at(n+1, "<br>\n"), "the PRIVATE KEY that begins at line " + itoa(n+1) + " cannot be decoded, line " + itoa(n+2) + " is not base64"},
		"a character lost":       {at(2, lines[2][1:]), "the CERTIFICATE that begins at line 1 lacks a part"},
		"no END":                 {at(n-1, ""), "the CERTIFICATE that begins at line 1 has no END line"},
		"cut off":                {text[:len(text)-60], "the PRIVATE KEY that begins at line " + itoa(n+1) + " has no END line"},
		"no BEGIN":               {at(n, ""), "line " + itoa(n+4) + " ends a PRIVATE KEY that has no BEGIN line"},
		"another END":            {at(n-1, "-----END PRIVATE KEY-----\n"), "the CERTIFICATE that begins at line 1 ends as a PRIVATE KEY"},
		"quoted in a mail":       {"> " + strings.ReplaceAll(text, "\n", "\n> "), "the CERTIFICATE that begins at line 1 cannot be decoded, line 2 is not base64"},
		"nothing inside":         {text + "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", " lacks a part"},
		"blanks only":            {" \n\n", "is empty"},
		"something else":         {"hello\n", ErrNeither.Error()},
		"part of a file":         {string(key[:40]), "is damaged or cut off"},
	} {
		_, err := Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), secret[50:70]) {
			t.Errorf("%s: quotes the key: %v", name, err)
		}
	}
}

func itoa(n int) string { return big.NewInt(int64(n)).String() }

// DER is told by its form alone.
func TestDER(t *testing.T) {
	t.Parallel()
	cert, key, _ := sample(t)
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ec := private.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ec)
	if err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		out, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for want, data := range map[string][]byte{
		"CERTIFICATE": cert, "PRIVATE KEY": key, "EC PRIVATE KEY": sec1, "PUBLIC KEY": public, "CERTIFICATE REQUEST": csr,
		"PKCS7":  unhex("300f06092a864886f70d010702a0023000"),
		"PKCS12": unhex("3080020103308006092a864886f70d010701a0800000000000000000"),
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			blocks, err := Parse(append(bytes.Clone(data), end...))
			if err != nil || len(blocks) != 1 || blocks[0].Type != want || blocks[0].Line != 0 {
				t.Errorf("%s: %v, %v", want, blocks, err)
			}
		}
		if !Holds(base64.StdEncoding.EncodeToString(data)) {
			t.Errorf("%s: in the place of a path it would be quoted", want)
		}
	}
	for _, path := range []string{"certs/app.pem", "/etc/propeller/AuthKey_ABC123DEFG.p8", "MIIB", strings.Repeat("/very/long/path", 20)} {
		if Holds(path) {
			t.Errorf("%s is taken for a key", path)
		}
	}
}

func TestInFile(t *testing.T) {
	t.Parallel()
	b := Block{Line: 1}
	for path, want := range map[string]string{
		"/x/app.pem":         "openssl pkey -in app.pem -aes256 -out new.pem",
		"AuthKey_X (1).p8":   "openssl pkey -in 'AuthKey_X (1).p8' -aes256 -out new.pem",
		"/x/it's $(mine).p8": `openssl pkey -in 'it'\''s $(mine).p8' -aes256 -out new.pem`,
		"-x.pem":             "openssl pkey -in '-x.pem' -aes256 -out new.pem",
	} {
		if got := InFile(b.Convert("pkey", "-aes256"), path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// No file of the size that is read takes long, whatever it repeats.
func TestNoFileTakesLong(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"-", "—", "\\", "\\r", "\\n", "-- BEGIN A", "--BEGIN A--", "--BEGIN A--x--END A--", "--BEGIN A--MII=--END A--", "--BEGIN A--\n", "BEGIN ", "#\n", " \n", "# ", "M", "0\x80", "0\x82\xff\xff", "\x00a", "\ufeff", "A: b\n"} {
		for _, head := range []string{"", "-----BEGIN CERTIFICATE-----\n", "--BEGIN A--MII=--END A--"} {
			data := []byte(head + strings.Repeat(s, 1<<15/len(s)))
			start := time.Now()
			_, _ = Parse(data)
			Holds(string(data))
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%q repeated, after %q: %s", s, head, took)
			}
		}
	}
}

// FuzzParse: what people have may be anything; each block has a type and content.
func FuzzParse(f *testing.F) {
	cert, _, text := sample(f)
	f.Add(text)
	f.Add(cert)
	f.Add([]byte(strings.ReplaceAll(string(text), "\n", `\n`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := Parse(data)
		if (err == nil) != (len(blocks) > 0) || err != nil && (len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\r\x1b\x00")) {
			t.Errorf("%d blocks, %q", len(blocks), err)
		}
		for _, b := range blocks {
			if b.Type == "" || len(b.Bytes) == 0 {
				t.Errorf("an empty block: %q", data)
			}
		}
	})
}

// A short DER file may end in a byte that is a line's end, and in a line's end besides.
func TestDEREndsLikeALine(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"\x30\x05\x02\x01\x01\x04\x0a", "\x30\x07\x02\x01\x01\x04\x02\x01\x0a\r\n"} {
		blocks, err := Parse([]byte(text[:2+text[1]]))
		if err == nil {
			blocks, err = Parse([]byte(text))
		}
		if err != nil || len(blocks) != 1 || blocks[0].Type != "EC PRIVATE KEY" {
			t.Errorf("%q: %v, %v", text, blocks, err)
		}
	}
}
