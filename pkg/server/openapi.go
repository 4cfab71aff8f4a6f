package server

import (
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// openReplies lets what the API answers with have more properties than its
// document says, since later servers will add some. Requests stay strict, so
// that a misspelt field is an error.
func (s *Server) openReplies() {
	asked := map[string]bool{}
	for _, item := range s.api.OpenAPI().Paths {
		for _, op := range operationsOf(item) {
			if op.RequestBody == nil {
				continue
			}
			for _, content := range op.RequestBody.Content {
				s.collect(content.Schema, asked)
			}
		}
	}
	for name, schema := range s.schemas().Map() {
		if !asked[name] {
			schema.AdditionalProperties = nil
		}
	}
}

// collect notes the names of the schemas that schema is made of.
func (s *Server) collect(schema *huma.Schema, names map[string]bool) {
	if schema == nil {
		return
	}
	if name, ok := strings.CutPrefix(schema.Ref, "#/components/schemas/"); ok && !names[name] {
		names[name] = true
		s.collect(s.schemas().Map()[name], names)
	}
	s.collect(schema.Items, names)
	for _, property := range schema.Properties {
		s.collect(property, names)
	}
	if values, ok := schema.AdditionalProperties.(*huma.Schema); ok {
		s.collect(values, names)
	}
}

// operationsOf lists the operations of a path.
func operationsOf(item *huma.PathItem) []*huma.Operation {
	var found []*huma.Operation
	for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch, item.Head} {
		if op != nil {
			found = append(found, op)
		}
	}
	return found
}
