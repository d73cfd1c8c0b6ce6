package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// process is a program that a script started.
type process struct {
	cmd   *exec.Cmd
	ended chan error
}

// processes are those of all scripts, by the script's directory: scripts run at the same time.
type processes struct {
	mu  sync.Mutex
	all map[string]*process
}

var running = &processes{all: map[string]*process{}}

func (p *processes) set(dir string, v *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[dir] = v
}

func (p *processes) get(dir string) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[dir]
}

func (p *processes) drop(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, dir)
}

// writeCertificate makes a certificate for the loopback address that is its own authority.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "edge-1"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "edge.crt"), filepath.Join(dir, "edge.key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
