// Package innerdock is the vocabulary of innerdock and its Go client.
//
// innerdock runs untrusted code in gVisor sandboxes that have a real Docker
// inside. This package names the nouns (Sandbox, Image, Process, DockerStatus),
// the one error type that travels from the store to the SDKs, and Client, which
// speaks to a server over HTTP. It imports the standard library alone, so that
// both the agent inside a sandbox and programs outside can use it.
package innerdock
