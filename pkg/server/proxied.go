package server

import (
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

// replyKind says what an agent may answer with. The server sets the reply's
// Content-Type from it, whatever the agent says: never HTML.
type replyKind int

const (
	replyNone   replyKind = iota // 204
	replyJSON                    // capped, and checked to be JSON
	replyBytes                   // application/octet-stream
	replyText                    // text/plain
	replyEvents                  // text/event-stream
)

// proxied is an operation that the sandbox's agent serves at the same path
// without /v1/sandboxes/{id}. This table is the allow-list: what is not in it
// does not reach an agent.
type proxied struct {
	method, path string // path below /v1/sandboxes/{id}
	name         string
	tag          string
	summary      string
	description  string
	query        []*huma.Param
	body         any   // a zero value of a JSON body's type; rawBody for bytes
	maxBody      int64 // default maxJSON
	reply        replyKind
	events       bool // with Accept: text/event-stream, replyEvents instead
	status       int  // of success
	result       any  // a zero value of a JSON reply's type
}

// rawBody marks a body of plain bytes.
type rawBody struct{}

const (
	maxSpec  = 4 << 20  // bytes of a process's arguments and environment
	maxStdin = 64 << 20 // bytes of one write to a standard input
	maxFile  = 64 << 30 // bytes of an upload; the sandbox's disk is the real limit
)

type (
	processList struct {
		Processes []innerdock.Process `json:"processes" nullable:"false"`
	}
	fileList struct {
		Files []innerdock.FileInfo `json:"files" nullable:"false"`
	}
)

func proxiedOperations() []proxied {
	return slices.Concat(processOperations(), fileOperations())
}

func processOperations() []proxied {
	offset := query("offset", huma.TypeInteger, "Offset of the first byte that is wanted. Default 0.", false)
	return []proxied{
		{
			method: http.MethodGet, path: "/processes", name: "listProcesses", tag: "processes",
			summary: "List processes", description: "All that run and the last 256 that have exited.",
			reply: replyJSON, status: http.StatusOK, result: processList{},
		},
		{
			method: http.MethodPost, path: "/processes", name: "startProcess", tag: "processes",
			summary: "Start a process",
			description: "With `Accept: text/event-stream` the answer is the stream of …/output from its beginning, after an event started. " +
				"A command that is not there is command_not_found.",
			query: []*huma.Param{query("wait", huma.TypeBoolean, "Answer when it has exited.", false)},
			body:  innerdock.ProcessSpec{}, maxBody: maxSpec, reply: replyJSON, events: true, status: http.StatusCreated, result: innerdock.Process{},
		},
		{
			method: http.MethodGet, path: "/processes/{pid}", name: "getProcess", tag: "processes",
			summary: "Get a process, or wait for it",
			query:   []*huma.Param{query("wait", huma.TypeNumber, "Seconds to wait until it has exited, 60 at the most. Default 0.", false)},
			reply:   replyJSON, status: http.StatusOK, result: innerdock.Process{},
		},
		{
			method: http.MethodGet, path: "/processes/{pid}/stdout", name: "readStdout", tag: "processes",
			summary: "Read what a process wrote to standard output", description: outputDescription,
			query: []*huma.Param{offset}, reply: replyBytes, status: http.StatusOK,
		},
		{
			method: http.MethodGet, path: "/processes/{pid}/stderr", name: "readStderr", tag: "processes",
			summary: "Read what a process wrote to standard error", description: outputDescription,
			query: []*huma.Param{offset}, reply: replyBytes, status: http.StatusOK,
		},
		{
			method: http.MethodGet, path: "/processes/{pid}/output", name: "streamOutput", tag: "processes",
			summary: "Stream the output of a process",
			description: "Events stdout and stderr carry data at an offset; dropped says that bytes were lost; exit is last. " +
				"A stream that broke off is resumed with the offsets reached.",
			query: []*huma.Param{
				query("stdout_offset", huma.TypeInteger, "Default 0.", false),
				query("stderr_offset", huma.TypeInteger, "Default 0.", false),
			},
			reply: replyEvents, status: http.StatusOK,
		},
		{
			method: http.MethodPost, path: "/processes/{pid}/signal", name: "signalProcess", tag: "processes",
			summary: "Send a signal to a process and its group", body: innerdock.SignalSpec{}, status: http.StatusNoContent,
		},
		{
			method: http.MethodPost, path: "/processes/{pid}/stdin", name: "writeStdin", tag: "processes",
			summary: "Write to a process's standard input",
			query:   []*huma.Param{query("close", huma.TypeBoolean, "Close it afterwards.", false)},
			body:    rawBody{}, maxBody: maxStdin, status: http.StatusNoContent,
		},
		{
			method: http.MethodGet, path: "/docker/logs", name: "getDockerLog", tag: "sandboxes",
			summary: "Get dockerd's own log", description: "The last 1 MiB of it.",
			query: []*huma.Param{offset}, reply: replyText, status: http.StatusOK,
		},
	}
}

const outputDescription = "What is buffered now, from the offset on. The header " + innerdock.OutputHeader +
	" is the offset of the first byte sent: more than was asked for when the oldest bytes were dropped."

func fileOperations() []proxied {
	where := query("path", huma.TypeString, "Absolute, or relative to "+innerdock.WorkspaceDir+".", true)
	mode := func(standard string) *huma.Param {
		return query("mode", huma.TypeString, "Permission bits in octal. Default "+standard+".", false)
	}
	return []proxied{
		{
			method: http.MethodGet, path: "/files/content", name: "readFile", tag: "files",
			summary: "Read a file", query: []*huma.Param{where}, reply: replyBytes, status: http.StatusOK,
		},
		{
			method: http.MethodPut, path: "/files/content", name: "writeFile", tag: "files",
			summary: "Write a file", description: "It is replaced as a whole or not at all; missing directories are made.",
			query: []*huma.Param{where, mode("0644")}, body: rawBody{}, maxBody: maxFile,
			reply: replyJSON, status: http.StatusCreated, result: innerdock.FileInfo{},
		},
		{
			method: http.MethodDelete, path: "/files", name: "removeFile", tag: "files",
			summary: "Remove a file or a directory",
			query:   []*huma.Param{where, query("recursive", huma.TypeBoolean, "A directory with all that is in it.", false)},
			status:  http.StatusNoContent,
		},
		{
			method: http.MethodGet, path: "/files/info", name: "getFile", tag: "files",
			summary: "Describe a file", query: []*huma.Param{where}, reply: replyJSON, status: http.StatusOK, result: innerdock.FileInfo{},
		},
		{
			method: http.MethodGet, path: "/files/list", name: "listFiles", tag: "files",
			summary: "List a directory", query: []*huma.Param{where}, reply: replyJSON, status: http.StatusOK, result: fileList{},
		},
		{
			method: http.MethodPost, path: "/files/directory", name: "makeDirectory", tag: "files",
			summary: "Make a directory and its parents", query: []*huma.Param{where, mode("0755")},
			reply: replyJSON, status: http.StatusCreated, result: innerdock.FileInfo{},
		},
	}
}

// query describes a query parameter.
func query(name, kind, doc string, required bool) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Required: required, Schema: &huma.Schema{Type: kind}}
}

var (
	idParameter  = pathParameter{"id", huma.TypeString, "ID, or the name of a live one."}
	pidParameter = pathParameter{"pid", huma.TypeInteger, "Process ID in the sandbox."}
)

type pathParameter struct{ name, kind, doc string }

func (s *Server) parameters(path ...pathParameter) []*huma.Param {
	params := make([]*huma.Param, 0, len(path))
	for _, p := range path {
		params = append(params, &huma.Param{
			Name: p.name, In: "path", Description: p.doc, Required: true, Schema: &huma.Schema{Type: p.kind},
		})
	}
	return params
}

func (s *Server) refTo(value any) *huma.Schema {
	return s.schemas().Schema(reflect.TypeOf(value), true, "")
}

// eventStream documents a stream of server-sent events with data of one type.
func (s *Server) eventStream(name string, data *huma.Schema, events ...string) *huma.Response {
	return &huma.Response{
		Description: "A stream of events whose data is " + name + " as JSON.",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema:     &huma.Schema{Type: huma.TypeString},
			Extensions: map[string]any{"x-events": events, "x-event-data": data},
		}},
	}
}
