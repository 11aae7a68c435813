#!/bin/sh
# Makes the files of this folder: one certificate and key, wrapped in every
# way that OpenSSL writes. They are for tests only and open nothing. The
# password is "correct horse". Needs OpenSSL 3 with its legacy provider.
set -eu
cd "$(dirname "$0")"
pass='correct horse'

openssl ecparam -name prime256v1 -genkey -noout -out plain.key
openssl req -x509 -new -key plain.key -days 36500 -out cert.pem \
	-subj '/UID=com.example.app/CN=Apple Push Services: com.example.app'

# The old form: headers Proc-Type and DEK-Info.
openssl ec -in plain.key -aes256 -passout "pass:$pass" -out old-aes256.key
openssl ec -in plain.key -des3 -passout "pass:$pass" -out old-des3.key

# PKCS#8, unencrypted and by PBES2.
openssl pkcs8 -topk8 -nocrypt -in plain.key -out pkcs8.key
for cipher in aes-128-cbc aes-192-cbc aes-256-cbc des3; do
	openssl pkcs8 -topk8 -in plain.key -v2 "$cipher" -passout "pass:$pass" -out "pbes2-$cipher.key"
done
for prf in hmacWithSHA1 hmacWithSHA512; do
	openssl pkcs8 -topk8 -in plain.key -v2 aes-256-cbc -v2prf "$prf" -passout "pass:$pass" -out "pbes2-$prf.key"
done

# What is not supported: PBES1 and scrypt.
openssl pkcs8 -topk8 -in plain.key -v1 PBE-SHA1-3DES -passout "pass:$pass" -out pbes1.key
openssl pkcs8 -topk8 -in plain.key -scrypt -passout "pass:$pass" -out scrypt.key

openssl pkcs12 -export -in cert.pem -inkey plain.key -passout "pass:$pass" -out modern.p12
openssl pkcs12 -export -legacy -in cert.pem -inkey plain.key -passout "pass:$pass" -out legacy.p12
openssl pkcs12 -export -in cert.pem -nokeys -passout "pass:$pass" -out nokey.p12
