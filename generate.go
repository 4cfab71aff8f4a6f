package innerdock

// All that is generated is made here, by `make generate`; `make check` makes it
// again and wants no difference.

//go:generate sh -c "go run ./cmd/innerdock openapi >api/openapi.yaml.new && mv api/openapi.yaml.new api/openapi.yaml"
//go:generate python3 sdk/python/scripts/unasync.py
