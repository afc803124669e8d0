# Every target installs what it needs: see deploy/install-postgres.

.PHONY: build demo test test-openfeature check generate clean

build:
	go build -o bin/assayd ./cmd/assayd

# Serves on 127.0.0.1:8080 with its data in .demo/, until Ctrl-C.
demo: build
	@deploy/install-postgres
	@bin/assayd demo --listen 127.0.0.1:8080 --data-dir .demo

test:
	@deploy/install-postgres
	@[ -n "$$ASSAY_CITUS_URL" ] || echo "Not verified in this run: Citus (ASSAY_CITUS_URL is not set)."
	go test -race -shuffle=on -timeout=15m ./...

# OpenFeature's Node client against the server. Needs Node 20 or newer.
test-openfeature:
	@deploy/test-openfeature

# What a change must pass beside the tests.
check:
	deploy/check

generate:
	deploy/generate

clean:
	rm -rf bin .demo .protovalidate internal/server/testdata/openfeature/node_modules
