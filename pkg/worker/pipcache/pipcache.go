// Package pipcache keeps what pip has downloaded and built while images of a tenant
// were made, for the next ones of that tenant.
//
// A sandbox gets the files as hard links in a directory that it can only read, and
// what is new in it comes back file by file, under a name that pip could have given.
// So no directory of the host is ever written by a sandbox, and two builds at once
// see nothing of each other: who ends later puts its files in place of the others'.
//
//	HEX/NAME   a file of a tenant; NAME is its path in pip's cache, with "," for "/"
//	making/    files that are being written
package pipcache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/innerdock/innerdock"
)

const (
	// maxFiles is how many files a tenant has.
	maxFiles = 20_000
	// maxAge is how long a file is kept after it was written.
	maxAge = 30 * 24 * time.Hour
	// maxName is the longest path of a file, in bytes.
	maxName = 240

	making = "making"
)

// Store is a directory of caches. Its methods may be called concurrently.
type Store struct {
	dir   string
	limit int64 // bytes of a tenant

	mu   sync.Mutex      // of the tenants' directories
	used map[string]used // by directory, once it was looked at
}

// used is what a tenant has. Of a file that was replaced both are counted until the
// next look.
type used struct {
	bytes int64
	files int
}

// Open opens the store in a directory of one server alone. A tenant's files may take
// limit bytes; 0: nothing is kept.
func Open(ctx context.Context, dir string, limit int64) (*Store, error) {
	s := &Store{dir: dir, limit: limit, used: map[string]used{}}
	err := os.RemoveAll(filepath.Join(dir, making)) // of a server that was killed
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, making), 0o700)
	}
	if err == nil {
		err = s.Trim(ctx)
	}
	if err != nil {
		return nil, innerdock.Internal(err, "opening pip's cache")
	}
	return s, nil
}

// tenantDir has a tenant's files.
func (s *Store) tenantDir(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16]))
}

// cachePath is a path that pip gives a file in its cache.
var cachePath = regexp.MustCompile(`^(?:http|http-v2|wheels)(?:/[A-Za-z0-9_][A-Za-z0-9_.+!-]*){1,12}$`)

// Path tells whether a path in pip's cache is one of files that are kept.
func Path(path string) bool { return len(path) <= maxName && cachePath.MatchString(path) }

// Lend makes dir, with a link to each of a tenant's files. They stay what they are
// when the tenant's files are replaced or removed.
func (s *Store) Lend(tenant, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return innerdock.Internal(err, "lending pip's cache")
	}
	entries, err := os.ReadDir(s.tenantDir(tenant))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		link := os.Link(filepath.Join(s.tenantDir(tenant), entry.Name()), filepath.Join(dir, entry.Name()))
		if !errors.Is(link, fs.ErrNotExist) { // removed meanwhile
			err = errors.Join(err, link)
		}
	}
	if err != nil {
		return innerdock.Internal(err, "lending pip's cache")
	}
	return nil
}

// Keep keeps a file of a tenant, whose path Path allows, and removes the oldest ones
// if there is no room for it. One that is larger than all room is not kept.
func (s *Store) Keep(tenant, path string, content io.Reader) error {
	file, err := os.CreateTemp(filepath.Join(s.dir, making), "file-")
	if err != nil {
		return innerdock.Internal(err, "keeping a file of pip's")
	}
	defer func() { _ = os.Remove(file.Name()) }() // unless it has its name
	size, err := io.Copy(file, io.LimitReader(content, s.limit+1))
	if err == nil && size <= s.limit {
		err = file.Sync() // after a power cut, pip would stumble over half a file
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return innerdock.Internal(err, "keeping a file of pip's")
	}
	if size > s.limit {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.tenantDir(tenant)
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = s.makeRoom(dir, size)
	}
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, strings.ReplaceAll(path, "/", ",")))
	}
	if err != nil {
		return innerdock.Internal(err, "keeping a file of pip's")
	}
	return nil
}

// makeRoom counts a file of a directory in, after it has removed others if need be:
// then some more, so that not every file is such a case.
func (s *Store) makeRoom(dir string, size int64) (err error) {
	u, known := s.used[dir]
	if !known {
		u, err = trim(dir, s.limit, maxFiles)
	}
	if err == nil && (u.bytes+size > s.limit || u.files == maxFiles) {
		u, err = trim(dir, s.limit-s.limit/8-size, maxFiles-maxFiles/8)
	}
	s.used[dir] = used{u.bytes + size, u.files + 1}
	return err
}

// Remove removes all of a tenant's files.
func (s *Store) Remove(tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.tenantDir(tenant)
	delete(s.used, dir)
	if err := os.RemoveAll(dir); err != nil {
		return innerdock.Internal(err, "removing pip's cache")
	}
	return nil
}

// Trim removes the files of all tenants that are old or too many.
func (s *Store) Trim(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	for _, entry := range entries {
		if entry.Name() == making || ctx.Err() != nil {
			continue
		}
		dir := filepath.Join(s.dir, entry.Name())
		left, failure := trim(dir, s.limit, maxFiles)
		s.used[dir] = left
		err = errors.Join(err, failure)
	}
	return err
}

// trim removes what is old of a tenant's files, and of the others the oldest for
// which there is no room. It returns what is left.
func trim(dir string, room int64, count int) (left used, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return left, err
	}
	var files []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	for _, file := range files {
		if left.bytes+file.Size() > room || left.files == count || time.Since(file.ModTime()) > maxAge {
			err = errors.Join(err, os.Remove(filepath.Join(dir, file.Name())))
			continue
		}
		left.bytes += file.Size()
		left.files++
	}
	return left, err
}
