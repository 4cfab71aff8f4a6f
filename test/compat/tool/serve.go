package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/miekg/dns"
)

// arguments takes exactly as many as there are targets.
func arguments(args []string, targets ...*string) error {
	if len(args) != len(targets) {
		return fmt.Errorf("%d arguments are wanted, not %q", len(targets), args)
	}
	for i, target := range targets {
		*target = args[i]
	}
	return nil
}

func ready() { fmt.Fprintln(os.Stdout, "ready") }

func serveHTTP(args []string) error {
	var address, text string
	if err := arguments(args, &address, &text); err != nil {
		return err
	}
	return serve(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }))
}

func serveRegistry(args []string) error {
	var address string
	if err := arguments(args, &address); err != nil {
		return err
	}
	return serve(address, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
}

func serve(address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	ready()
	return (&http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}).Serve(listener)
}

func serveUDP(args []string) error {
	var address string
	if err := arguments(args, &address); err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	ready()
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(buffer[:n], from); err != nil {
			return err
		}
	}
}

func serveEcho(args []string) error {
	var network, address string
	if err := arguments(args, &network, &address); err != nil {
		return err
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	ready()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}()
	}
}

// ask sends text, closes its half of a stream and prints what comes back. Of
// UDP it sends again while nothing does.
func ask(args []string) error {
	var network, address, text string
	if err := arguments(args, &network, &address, &text); err != nil {
		return err
	}
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if network != "udp" {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, text+"\n"); err != nil {
			return err
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			if err := half.CloseWrite(); err != nil {
				return err
			}
		}
		_, err := io.Copy(os.Stdout, conn)
		return err
	}
	buffer := make([]byte, 64<<10)
	for range 5 {
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = conn.Read(buffer); err == nil {
			fmt.Fprintln(os.Stdout, string(buffer[:n]))
			return nil
		}
	}
	return err
}

func serveDNS(args []string) error {
	if len(args) < 2 {
		return errors.New("an address and names are wanted")
	}
	known := map[string]net.IP{}
	for _, pair := range args[1:] {
		name, ip, _ := strings.Cut(pair, "=")
		known[dns.Fqdn(name)] = net.ParseIP(ip)
	}
	return (&dns.Server{Addr: args[0], Net: "udp", NotifyStartedFunc: ready,
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, request *dns.Msg) {
			answer := new(dns.Msg).SetReply(request)
			name := request.Question[0].Name
			switch ip, ok := known[strings.ToLower(name)]; {
			case !ok:
				answer.Rcode = dns.RcodeNameError
			case request.Question[0].Qtype == dns.TypeA:
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: ip})
			}
			_ = w.WriteMsg(answer)
		})}).ListenAndServe()
}
