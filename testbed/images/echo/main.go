// Command echo is the backend in the test bed's pods: it says who it is and whom it saw, over TCP, UDP and HTTP.
//
//	TCP   on accept one line "NAME SOURCE", then every byte comes back
//	UDP   each datagram is answered by one datagram: the line "NAME SOURCE", then the payload
//	HTTP  any path: a JSON object with name, node, source, destination, method, host and path
//
// NAME is $POD_NAME, else the host name; SOURCE is the peer's ADDRESS:PORT as the kernel reports it, with an IPv6
// address in brackets. Without arguments it listens on TCP 9000, UDP 9000 and HTTP 8080.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// identity is what every answer begins with.
type identity struct{ name, node string }

// answer is the body of an HTTP response.
type answer struct {
	Name        string `json:"name"`
	Node        string `json:"node"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Method      string `json:"method"`
	Host        string `json:"host"`
	Path        string `json:"path"`
}

func main() {
	tcp := flag.String("tcp", "9000", "TCP ports to echo on, separated by commas; empty for none")
	udp := flag.String("udp", "9000", "UDP ports to echo on, separated by commas; empty for none")
	web := flag.String("http", "8080", "HTTP ports, separated by commas; empty for none")
	flag.Parse()

	host, _ := os.Hostname()
	me := identity{name: cmp.Or(os.Getenv("POD_NAME"), host), node: os.Getenv("NODE_NAME")}
	for _, port := range ports(*tcp) {
		listener := must(net.Listen("tcp", ":"+port))
		go me.serveTCP(listener)
	}
	for _, port := range ports(*udp) {
		address := must(net.ResolveUDPAddr("udp", ":"+port))
		go me.serveUDP(must(net.ListenUDP("udp", address)))
	}
	for _, port := range ports(*web) {
		listener := must(net.Listen("tcp", ":"+port))
		go http.Serve(listener, http.HandlerFunc(me.serveHTTP))
	}

	// The first process of a container gets no default action for signals.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}

func ports(list string) []string {
	return strings.FieldsFunc(list, func(it rune) bool { return it == ',' || it == ' ' })
}

func (me identity) greeting(source net.Addr) string {
	return fmt.Sprintf("%s %s\n", me.name, plain(source.String()))
}

// plain writes an IPv4 peer of a dual-stack socket as IPv4.
func plain(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host).To4(); ip != nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}

func (me identity) serveTCP(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Printf("accept: %v", err)
			continue
		}
		go func() {
			defer connection.Close()
			if _, err := io.WriteString(connection, me.greeting(connection.RemoteAddr())); err == nil {
				io.Copy(connection, connection)
			}
		}()
	}
}

func (me identity) serveUDP(socket *net.UDPConn) {
	// The answer must leave from the address that was asked: a pod has one address, so the routing table's choice is it.
	payload := make([]byte, 65535)
	for {
		length, source, err := socket.ReadFromUDP(payload)
		if err != nil {
			log.Printf("receive: %v", err)
			continue
		}
		socket.WriteToUDP(append([]byte(me.greeting(source)), payload[:length]...), source)
	}
}

func (me identity) serveHTTP(w http.ResponseWriter, r *http.Request) {
	destination := ""
	if address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		destination = plain(address.String())
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{me.name, me.node, plain(r.RemoteAddr), destination, r.Method, r.Host, r.URL.Path})
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
