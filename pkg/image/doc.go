// Package image makes the images that sandboxes start from: a definition names
// a base and steps on it, and becomes one EROFS file in a local store.
//
// A base is pulled from a registry. When no registry can be reached, the
// official Python and Debian images are made from Debian's packages instead.
// Steps run as root inside a sandbox (Runner), never on the host; what they
// changed becomes one more layer.
//
// An image's ID is a hash of its base's digest, its steps and its environment, and
// of its tenant if pip's cache, which is the tenant's, may be in it.
// Tags are resolved once and remembered, so that a definition that was built
// before is found without the network, in a few milliseconds.
//
// The store is a directory that several servers on one machine may use at once:
//
//	parts/HEX             what has come of layers whose pull broke off
//	blobs/sha256/HEX      layers as their registries have them, manifests, configurations
//	images/HEX/           image.json, whose time is that of the last use, and root.erofs
//	refs/HEX.json         what a reference was resolved to
//	tmp/                  work in progress; a lock on each entry tells who is alive
//	locks/                one for each key that somebody works on
//
// Everything is written under tmp, synced, and renamed to its place: a server
// that is killed leaves nothing half-made in use, and the next Open removes its
// entries of tmp.
package image
