// Command echo is the backend in the test bed's pods: it says who it is, whom it saw and where it was reached, in the
// words that the probes of the crate testkit understand.
//
//	TCP   on accept, and again for each line received: "ECHO NAME SOURCE DESTINATION" and a line end
//	UDP   one datagram for each datagram: "ECHO NAME SOURCE DESTINATION ", then the payload
//	HTTP  any path: a JSON object with name, node, source, destination, method, host and path
//
// NAME is $POD_NAME, else the host name. SOURCE and DESTINATION are ADDRESS:PORT after all translation, an IPv6 address
// in brackets. Without arguments it listens on TCP 9000, UDP 9000 and HTTP 8080.
package main

import (
	"bufio"
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
		// One socket for each address: the answer must leave from the address that was asked, and say which.
		for _, address := range addresses() {
			at := must(net.ResolveUDPAddr("udp", net.JoinHostPort(address, port)))
			go me.serveUDP(must(net.ListenUDP("udp", at)))
		}
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

// addresses are this pod's own, which are settled before it starts.
func addresses() []string {
	var found []string
	for _, it := range must(net.InterfaceAddrs()) {
		// A link-local address would need its interface too, and nobody asks there.
		if network, ok := it.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
			found = append(found, network.IP.String())
		}
	}
	return found
}

func ports(list string) []string {
	return strings.FieldsFunc(list, func(it rune) bool { return it == ',' || it == ' ' })
}

func (me identity) line(source, destination net.Addr) string {
	return fmt.Sprintf("ECHO %s %s %s", me.name, plain(source.String()), plain(destination.String()))
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
			line := me.line(connection.RemoteAddr(), connection.LocalAddr()) + "\n"
			questions := bufio.NewScanner(connection)
			for {
				if _, err := io.WriteString(connection, line); err != nil || !questions.Scan() {
					return
				}
			}
		}()
	}
}

func (me identity) serveUDP(socket *net.UDPConn) {
	payload := make([]byte, 65535)
	for {
		length, source, err := socket.ReadFromUDP(payload)
		if err != nil {
			log.Printf("receive: %v", err)
			continue
		}
		answer := append([]byte(me.line(source, socket.LocalAddr())+" "), payload[:length]...)
		socket.WriteToUDP(answer, source)
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
