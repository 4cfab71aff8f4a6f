package tunnel

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets are two ends of a Unix socket.
func sockets(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

// tunnelled is a connection from a to b through a tunnel whose carrier is passed
// on in the middle: program a — Join — tunnel — Pipe — tunnel — Join — program b.
func tunnelled(t *testing.T) (a, b *net.UnixConn, broken net.Conn) {
	t.Helper()
	a, left := sockets(t)
	right, b := sockets(t)
	near, nearMiddle := sockets(t)
	farMiddle, far := sockets(t)
	var joining sync.WaitGroup
	joining.Go(func() { _ = Join(left, New(near)) })
	joining.Go(func() { Pipe(nearMiddle, farMiddle) })
	joining.Go(func() { _ = Join(New(far), right) })
	t.Cleanup(func() { a.Close(); b.Close(); near.Close(); joining.Wait() })
	return a, b, nearMiddle
}

func TestEachDirectionEndsByItself(t *testing.T) {
	a, b, _ := tunnelled(t)
	sent := make([]byte, 3<<20)
	rand.Read(sent)
	go func() { a.Write(sent); a.CloseWrite() }()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	if _, err := io.WriteString(b, "answered after the end of the question"); err != nil {
		t.Fatal(err)
	}
	b.CloseWrite()
	if answer, err := io.ReadAll(a); err != nil || !strings.Contains(string(answer), "after the end") {
		t.Fatalf("%q, %v", answer, err)
	}
}

func TestAnEmptyStreamEnds(t *testing.T) {
	a, b, _ := tunnelled(t)
	a.CloseWrite()
	b.CloseWrite()
	for _, end := range []net.Conn{a, b} {
		if got, err := io.ReadAll(end); err != nil || len(got) > 0 {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A program that is gone, not only silent, ends the other side too, although
// nobody writes.
func TestAClientThatVanishesEndsTheOtherSide(t *testing.T) {
	a, b, _ := tunnelled(t)
	a.Close()
	if _, err := io.ReadAll(b); err != nil { // its direction has ended
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := b.Write([]byte("x")); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the other side never learned of it")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A reader that is slow holds up a writer, and a half-closed client stays.
func TestAHalfClosedClientStays(t *testing.T) {
	a, b, _ := tunnelled(t)
	a.CloseWrite()
	io.ReadAll(b)
	<-time.After(2*hangupPace + 100*time.Millisecond) // it was looked at
	if _, err := io.WriteString(b, "still here"); err != nil {
		t.Fatal(err)
	}
	b.CloseWrite()
	if got, err := io.ReadAll(a); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}

// A carrier that breaks cuts both sides off at once.
func TestABrokenCarrierEndsBothSides(t *testing.T) {
	a, b, broken := tunnelled(t)
	io.WriteString(a, "x")
	io.ReadFull(b, make([]byte, 1))
	broken.Close()
	for _, end := range []net.Conn{a, b} {
		end.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, timeout{}) {
			t.Errorf("reading says %v", err)
		}
	}
}

type timeout struct{}

func (timeout) Error() string { return "i/o timeout" }
func (timeout) Is(err error) bool {
	known, ok := err.(net.Error)
	return ok && known.Timeout()
}

func TestACutOffIsNoEnd(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing": "", "half a length": "\x00\x00", "half a frame": "\x00\x00\x00\x05abc", "after a frame": "\x00\x00\x00\x01a",
	} {
		near, far := sockets(t)
		go func() { io.WriteString(far, sent); far.Close() }()
		if _, err := io.ReadAll(New(near)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFrameThatIsTooLongIsRefused(t *testing.T) {
	near, far := sockets(t)
	go far.Write(binary.BigEndian.AppendUint32(nil, maxFrame+1))
	if _, err := New(near).Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "frame") {
		t.Errorf("reading says %v", err)
	}
}

// A deadline that passes in the middle of a frame loses nothing.
func TestDeadlinesLoseNothing(t *testing.T) {
	near, far := sockets(t)
	conn := New(near)
	for _, part := range []string{"\x00\x00", "\x00\x04a", "bcd\x00\x00\x00\x00"} {
		conn.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := conn.Read(make([]byte, 8)); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("before %q: %v", part, err)
		}
		io.WriteString(far, part)
	}
	conn.SetReadDeadline(time.Time{})
	if got, err := io.ReadAll(conn); string(got) != "abcd" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		near, far := net.Pipe()
		go func() { far.Write(sent); far.Close() }()
		got, err := io.ReadAll(New(near))
		near.Close()
		if len(got) > len(sent) || err == nil && !bytes.Contains(sent, make([]byte, header)) {
			t.Errorf("%q became %q, %v", sent, got, err)
		}
	})
}

// Upgrading loses nothing that is sent right behind the head, on either side.
func TestUpgrade(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Asked(r) || r.Header.Get("Authorization") != "Bearer k" {
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		carrier, err := Accept(w)
		if err != nil {
			t.Error(err)
			return
		}
		conn := New(carrier)
		defer conn.Close()
		io.WriteString(conn, "hello")
		io.Copy(conn, conn)
		conn.CloseWrite()
	}))
	defer server.Close()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	request := func(key string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, server.URL, nil)
		r.Header.Set("Authorization", key)
		return r
	}
	carrier, response, err := Request(dial(), request("Bearer k"))
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response, err)
	}
	conn := New(carrier)
	io.WriteString(conn, " again")
	conn.CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "hello again" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	carrier, response, err = Request(dial(), request(""))
	if err != nil || carrier != nil || response.StatusCode != http.StatusTeapot {
		t.Fatalf("%v, %v, %v", carrier, response, err)
	}
	if body, err := io.ReadAll(response.Body); !strings.Contains(string(body), "no") || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

func BenchmarkTunnel(b *testing.B) {
	near, far := net.Pipe()
	in, out := New(near), New(far)
	defer near.Close()
	go io.Copy(io.Discard, out)
	chunk := make([]byte, 32<<10)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := in.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}

// What is here goes along in one read, wherever frames begin and end.
func TestReadsGatherFrames(t *testing.T) {
	near, far := sockets(t)
	if _, err := io.WriteString(far, "\x00\x00\x00\x02ab\x00\x00\x00\x03cde\x00\x00\x00\x01f\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	conn := New(near)
	for _, want := range []string{"abcd", "ef"} {
		p := make([]byte, 4)
		if n, err := conn.Read(p); err != nil || string(p[:n]) != want {
			t.Fatalf("%q, %v; want %q", p[:n], err, want)
		}
	}
	for range 2 {
		if n, err := conn.Read(make([]byte, 4)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("%d, %v at the end", n, err)
		}
	}
}

// A frame that is too large is no part of what came before it.
func TestTooLargeAFrameIsAnErrorOfItsOwn(t *testing.T) {
	near, far := sockets(t)
	if _, err := io.WriteString(far, "\x00\x00\x00\x02ab\x7f\x00\x00\x00much"); err != nil {
		t.Fatal(err)
	}
	conn := New(near)
	p := make([]byte, 10)
	if n, err := conn.Read(p); err != nil || string(p[:n]) != "ab" {
		t.Fatalf("%q, %v", p[:n], err)
	}
	for range 2 {
		if _, err := conn.Read(p); err == nil || !strings.Contains(err.Error(), "a frame of the tunnel") {
			t.Fatal(err)
		}
	}
}
