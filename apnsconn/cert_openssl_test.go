package apnsconn

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

// needOpenSSL skips a test where there is no OpenSSL 3, and runs it otherwise.
func needOpenSSL(t *testing.T) {
	t.Helper()
	version, err := exec.Command("openssl", "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(version), "OpenSSL 3") {
		t.Skipf("NOT RUN: no OpenSSL 3 here: %.60s, %v", version, err)
	}
}

// shell runs a command in a folder, bounded by the time of the test.
func shell(t *testing.T, dir, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

var advice = regexp.MustCompile(`openssl .*-out new\.pem`)

// follow runs the command that the error names, and gives it the passwords that it would
// ask for.
func follow(t *testing.T, dir, password string, err error) {
	t.Helper()
	command := advice.FindString(err.Error())
	if command == "" {
		t.Fatalf("names no command: %v", err)
	}
	if !strings.Contains(command, "pkcs7") {
		command += " -passin 'pass:" + password + "'"
	}
	if strings.Contains(command, "-aes256") {
		command += " -passout 'pass:" + password + "'"
	}
	shell(t, dir, command)
}

// Each PKCS#12 file that OpenSSL can write is read; or the error names its kind and the
// command after which it is.
func TestPKCS12OfOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	key := newTestKey(t)
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	ca := newTestCert(t, certSpec{uid: "ca"}, newTestKey(t))
	for options, want := range map[string]string{ // want "": read
		"":                   "",
		"-macalg sha224":     "",
		"-macalg sha384":     "",
		"-macalg sha3-256":   "",
		"-nomac":             "",
		"-nomaciter -noiter": "",
		"-keypbe NONE -certpbe NONE -macalg sha384":                 "",
		"-keypbe NONE -certpbe NONE -nomac":                         "",
		"-certpbe NONE -nomac":                                      "",
		"-legacy":                                                   "",
		"-legacy -keypbe PBE-SHA1-RC2-128":                          "",
		"-legacy -keypbe PBE-SHA1-RC4-128 -nomac":                   "is encrypted in a way that is not supported (RC4)",
		"-legacy -keypbe PBE-MD5-DES":                               "is encrypted in a way that is not supported (MD5 with DES)",
		"-keypbe PBE-SHA1-2DES":                                     "is encrypted in a way that is not supported (two-key triple DES)",
		"-keypbe des-ede3-cbc -certpbe des-ede3-cbc":                "is encrypted in a way that is not supported (PBES2 with triple DES)",
		"-certpbe camellia-256-cbc":                                 "is encrypted in a way that is not supported (Camellia)",
		"-legacy -keypbe camellia-128-cbc -certpbe PBE-SHA1-RC2-40": "is encrypted in a way that is not supported (Camellia)",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "in.pem"), join(keyPEM(t, key), certPEM(leaf, ca)), 0o600); err != nil {
				t.Fatal(err)
			}
			shell(t, dir, "openssl pkcs12 -export "+options+" -in in.pem -out 'the file.p12' -passout pass:hunter2")
			file := filepath.Join(dir, "the file.p12")
			if !strings.Contains(options, "-keypbe NONE") && (want == "" || !strings.Contains(options, "-nomac")) {
				wantFault(t, file, "", "hunter3", "the password for the PKCS#12 file is wrong", ErrPassword)
				wantFault(t, file, "", "", "the PKCS#12 file is encrypted and no password was given", ErrPassword)
			}
			c, err := LoadCertificate(file, "", "hunter2")
			if want != "" {
				wantFault(t, file, "", "hunter2", want, nil)
				if legacy := strings.Contains(options, "-legacy"); strings.Contains(err.Error(), "openssl pkcs12 -legacy -in") != legacy {
					t.Errorf("%v", err)
				}
				follow(t, dir, "hunter2", err)
				file = filepath.Join(dir, "new.pem")
				c, err = LoadCertificate(file, "", "")
			}
			if err != nil {
				t.Fatal(err)
			}
			checkLoaded(t, c, file, leaf, []*x509.Certificate{ca})
		})
	}
}

// What OpenSSL makes something else of before it can be used: what the error says works.
func TestConvert(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	key := newTestKey(t)
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	p12, err := pkcs12.Modern.Encode(key, leaf, nil, "hunter2")
	if err != nil {
		t.Fatal(err)
	}
	mangled, err := pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{{Raw: otherSignature(t, newTestCert(t, certSpec{uid: "ca"}, newTestKey(t)))}}, "hunter2")
	if err != nil {
		t.Fatal(err)
	}
	const old = " -in in.pem -passout pass:hunter2 >>cert.pem && mv cert.pem x"
	for name, tt := range map[string]struct {
		do   string // the command that makes the file
		data []byte // or its content
		want string
		key  string // the file of the key beside new.pem; "new": new.pem is the key; "": has it
	}{
		"BER":                   {data: join([]byte{0x30, 0x80}, p12[4:], []byte{0, 0}), want: "it is in BER, as NSS and Firefox write it"},
		"several keys":          {data: twoKeys(t, leaf, key, newTestKey(t)), want: "holds several private keys"},
		"no key":                {do: "openssl pkcs12 -export -nokeys -in in.pem -passout pass:hunter2 -out x", want: "holds a certificate but no private key", key: "in.pem"},
		"an authority's damage": {data: mangled, want: "has a certificate that cannot be parsed (inner and outer signature algorithm identifiers don't match)"},
		"emoji":                 {do: "openssl pkcs12 -export -in in.pem -passout pass:🔑 -out x", want: "a password with an emoji"},
		"PKCS#7":                {do: "openssl crl2pkcs7 -nocrl -certfile in.pem -out x", want: "holds PKCS#7, which has certificates but no private key", key: "in.pem"},
		"PKCS#7 as DER":         {do: "openssl crl2pkcs7 -nocrl -certfile in.pem -outform DER -out x", want: "holds PKCS#7, which has certificates but no private key", key: "in.pem"},
		"scrypt":                {do: "openssl pkcs8 -topk8 -scrypt" + old, want: "(scrypt)", key: "new"},
		"triple DES of PKCS#12": {do: "openssl pkcs8 -topk8 -v1 PBE-SHA1-3DES" + old, want: "(triple DES of PKCS#12)", key: "new"},
		"MD5 with DES":          {do: "openssl pkcs8 -provider legacy -provider default -topk8 -v1 PBE-MD5-DES" + old, want: "(MD5 with DES)", key: "new"},
		"Camellia, old headers": {do: "openssl ec -camellia256" + old, want: "is encrypted in a way that is not supported: ", key: "new"},
		"SEED, old headers":     {do: "openssl ec -provider legacy -provider default -seed" + old, want: "is encrypted in a way that is not supported: ", key: "new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, password := t.TempDir(), "hunter2"
			at := func(name string) string { return filepath.Join(dir, name) }
			for name, data := range map[string][]byte{"in.pem": join(keyPEM(t, key), certPEM(leaf)), "cert.pem": certPEM(leaf), "x": tt.data} {
				if err := os.WriteFile(at(name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.do != "" {
				shell(t, dir, tt.do)
			}
			if name == "emoji" {
				password = "🔑"
			}
			wantFault(t, at("x"), "", password, tt.want, nil)
			_, err := LoadCertificate(at("x"), "", password)
			follow(t, dir, password, err)
			cert, keyFile := at("new.pem"), ""
			switch tt.key {
			case "":
			case "new":
				cert, keyFile = at("x"), cert
			default:
				keyFile = at(tt.key)
			}
			c, err := LoadCertificate(cert, keyFile, password)
			if err != nil {
				t.Fatal(err)
			}
			checkLoaded(t, c, cert, leaf, nil)
		})
	}
}

// otherSignature is the DER of a certificate as node-forge writes those with an EC key
// anew: what it is signed by has parameters outside that it has not inside.
func otherSignature(t *testing.T, cert *x509.Certificate) []byte {
	t.Helper()
	var parts struct {
		Content   asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Raw, &parts); err != nil {
		t.Fatal(err)
	}
	parts.Algorithm.Parameters = asn1.NullRawValue
	return inDER(t, parts)
}

// twoKeys is a PKCS#12 file with two keys and the certificate of the first.
func twoKeys(t *testing.T, leaf *x509.Certificate, keys ...crypto.Signer) []byte {
	t.Helper()
	bag := func(id asn1.ObjectIdentifier, value []byte) safeBag {
		return safeBag{ID: id, Value: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: value}}
	}
	bags := []safeBag{bag(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}, inDER(t, struct {
		ID   asn1.ObjectIdentifier
		Cert []byte `asn1:"tag:0,explicit"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}, leaf.Raw}))}
	for _, key := range keys {
		block, _ := pem.Decode(keyPEM(t, key))
		bags = append(bags, bag(oidKeyBag, block.Bytes))
	}
	der, err := (&pfx{Version: 3}).sealed([]contentInfo{part(t, oidData, inDER(t, bags))}, bmp("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A key for provider tokens that is encrypted is decrypted as the error says.
func TestDecryptP8(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	dir, key := t.TempDir(), newTestKey(t)
	if err := os.WriteFile(filepath.Join(dir, "in"), keyPEM(t, key), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]string{
		"PKCS#8":         "openssl pkcs8 -topk8 -in in -passout pass:hunter2 -out 'AuthKey_A (1).p8'",
		"PKCS#8 as DER":  "openssl pkcs8 -topk8 -in in -passout pass:hunter2 -outform DER -out 'AuthKey_A (1).p8'",
		"RC4":            "openssl pkcs8 -provider legacy -provider default -topk8 -v1 PBE-SHA1-RC4-128 -in in -passout pass:hunter2 -out 'AuthKey_A (1).p8'",
		"PBES2 with DES": "openssl pkcs8 -provider legacy -provider default -topk8 -v2 des-cbc -in in -passout pass:hunter2 -out 'AuthKey_A (1).p8'",
		"old DES":        "openssl ec -provider legacy -provider default -des -in in -passout pass:hunter2 -out 'AuthKey_A (1).p8'",
		"old headers":    "openssl ec -aes256 -in in -passout pass:hunter2 -out 'AuthKey_A (1).p8'",
	} {
		shell(t, dir, do)
		_, err := LoadKey(filepath.Join(dir, "AuthKey_A (1).p8"), testKeyID, testTeamID)
		if err == nil || !strings.Contains(err.Error(), "is encrypted, which Apple's .p8 files are not") {
			t.Fatalf("%s: %v", name, err)
		}
		if legacy := strings.Contains(do, "legacy"); strings.Contains(err.Error(), "legacy") != legacy {
			t.Errorf("%s: %v", name, err)
		}
		follow(t, dir, "hunter2", err)
		if k, err := LoadKey(filepath.Join(dir, "new.pem"), testKeyID, testTeamID); err != nil || !parsed(t, k).Equal(key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
