package httpapi

import (
	_ "embed"
	"net/http"
)

// openAPI describes every request and answer. A test checks the one by the other.
//
//go:embed openapi.yaml
var openAPI []byte // never written to

func describe(w http.ResponseWriter, _ *http.Request, _ *client) {
	answer{status: http.StatusOK, contentType: "application/yaml", body: openAPI}.write(w)
}
