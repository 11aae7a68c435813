# make run    the daemon on propeller.yaml; needs only Go
# make check  format, vet, staticcheck and the fast tests: before each commit
# make test   everything that CI checks; VULNDB=FOLDER has a copy of Go's database of known flaws
# make build  the binary
# make bench, make bench-go, make bench-http  the figures of docs/benchmarks.md

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Debian has servers such as nghttpd there, and ordinary users not on their PATH.
export PATH := $(PATH):/usr/sbin

# The race detector makes a program wait a second before it exits. The tests start hundreds.
export GORACE = atexit_sleep_ms=0

.PHONY: run check test lint unraced chaos-once build bench bench-go bench-http apps lanes chaos model stress soak fuzz screenshots tools test-tools

build:
	go build -o propeller ./cmd/propeller

run:
	go build -o .propeller/propeller ./cmd/propeller
	exec .propeller/propeller run

# Tests of time and memory. The race detector makes them take five times as long and
# has nothing to find in them, so make test runs them without it, and most of the
# model's lives.
MEASURED = TestPeakOf[A-Za-z]*|TestParsersAreLinear|TestFilesAreReadInLinearTime|TestLargestFilesTakeBoundedMemory|TestNoFileTakesLong
MEASURED_IN = $(shell grep -rlwE --include='*_test.go' '^func ($(MEASURED)|TestModel)' . | xargs -n 1 dirname | sort -u)

# Packages whose tests start servers, browsers or whole daemons, and take minutes. make
# check runs only those of their tests that hold the documents against the code, and of the
# other packages all but the measured tests.
SLOW = ^propeller/(cmd/propeller|supervisor|queue/jetstream.*|internal/move|test/.*)$$
DOCS = Docs$$|Documented$$|Promises|ReadmeConfigurations|Board$$

check: lint tools test-tools
	go test -skip '^($(MEASURED))$$' $$(go list ./... | grep -vE '$(SLOW)')
	go test -run '$(DOCS)' ./cmd/propeller ./queue/jetstream

# The short run of chaos waits more than it works, so other checks run beside it.
test: tools test-tools
	go mod tidy -diff
	$(MAKE) -j 2 chaos-once unraced
	go test -race -timeout 20m -skip '^($(MEASURED))$$' ./...

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'not gofmt-ed'; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

unraced: lint
	VULNDB="$(VULNDB)" GOVULNCHECK=$(GOVULNCHECK) deploy/vulncheck.sh
	cd bench && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./... && go test -race ./...
	go test -run '^($(MEASURED)|TestModel)$$' $(MEASURED_IN)

chaos-once:
	CHAOS_TIME=60s CHAOS_SEED=1 go run ./test/chaos

# bench: apnsconn beside other senders, against nghttpd. bench-go: the benchmarks
# of this module, from its parts to the whole daemon.
bench: test-tools
	cd bench && go run .

bench-go: tools
	go test -run '^$$' -bench . -benchmem ./...

# bench-http: how fast the daemon takes notifications over HTTP, with wrk as the client.
bench-http:
	@deploy/need.sh wrk=wrk
	go run ./test/rigs http

# apps measures a daemon with ten thousand apps, of which most sleep; lanes an urgent lane
# beside a bulk lane of the same topic. RIG_QUEUE may be beanstalkd or nats, a cluster of three.
APPS = 10000
RIG_QUEUE = embedded
apps: tools
	go run ./test/rigs apps -apps $(APPS) -queue $(RIG_QUEUE)
lanes: tools
	go run ./test/rigs lanes -queue $(RIG_QUEUE)

# chaos kills, freezes and disturbs everything around and in the daemon, and
# counts what was lost and what stands still. Its settings are CHAOS_TIME (60s), CHAOS_SEED (1) and
# CHAOS_ENGINE (beanstalkd, embedded, nats or all). Before a release,
#	make chaos CHAOS_SEEDS=8 CHAOS_ENGINE=all
# runs eight seeds on each engine and prints a table, and
#	make chaos CHAOS_APPS=300 CHAOS_TIME=10m CHAOS_ENGINE=all
# has 300 apps of which most sleep and wake.
chaos: tools
	go run ./test/chaos

# model plays a million lives of a worker, each drawn from a seed, and prints the
# shortest that goes wrong. MODEL_FROM is the first seed.
MODEL_SEEDS = 1000000
MODEL_FROM = 0
model:
	go test -count 1 -timeout 0 -run '^TestModel$$' ./worker -model.from $(MODEL_FROM) -model.seeds $(MODEL_SEEDS)

# stress sends a million pushes over connections that break in every way.
stress:
	APNSCONN_STRESS=1000000 go test -race -count 1 -timeout 30m -v -run '^TestStress$$' ./apnsconn

# soak works off a million jobs and fails if memory, goroutines or files grow.
# SOAK_QUEUE may be the URL of a beanstalkd.
SOAK_JOBS = 1000000
SOAK_QUEUE = embedded
soak:
	go run ./test/rigs -jobs $(SOAK_JOBS) -queue $(SOAK_QUEUE) soak

# fuzz runs every fuzz target for FUZZTIME; make test runs only their corpora.
FUZZTIME = 30s
fuzz: tools
	deploy/fuzz.sh $(FUZZTIME)

# screenshots draws the pages for docs/screenshots: light, dark, and as on a phone.
screenshots: tools test-tools
	@deploy/need.sh pngquant=pngquant
	mkdir -p docs/screenshots
	SCREENSHOTS=$(CURDIR)/docs/screenshots go test -count 1 -run TestPageLooks ./cmd/propeller
	pngquant --force --ext .png --speed 1 --strip docs/screenshots/*.png

tools:
	@deploy/need.sh beanstalkd=beanstalkd

test-tools:
	@deploy/need.sh nc=netcat-openbsd,netcat python3=python3 nghttpd=nghttp2-server,nghttp2 h2load=nghttp2-client,nghttp2 node=nodejs,node chromium=chromium
	@deploy/promtool.sh
	@deploy/npm.sh
	@deploy/clients.sh
