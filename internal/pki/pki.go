package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// Edit changes a certificate before it is signed.
type Edit func(*x509.Certificate)

// Within says when a certificate counts.
func Within(from, to time.Time) Edit {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

// Lasting says how long from now a certificate counts.
func Lasting(d time.Duration) Edit {
	return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
}

// ForClient makes a certificate a client's.
func ForClient(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes one that is signed by itself.
func NewAuthority(name string, edits ...Edit) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	c, err := template(name)
	if err != nil {
		return nil, err
	}
	authority(c)
	p, err := sign(c, key, nil, edits)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: p.Leaf, key: key}, nil
}

// Subordinate makes an authority that is signed by this one. Its certificates count for who is shown its own too.
func (a *Authority) Subordinate(name string) (*Authority, error) {
	p, err := a.Issue(name, authority)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: p.Leaf, key: p.PrivateKey.(crypto.Signer)}, nil
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	c.DNSNames, c.IPAddresses = nil, nil
}

// Issue makes a server's certificate, with a key of its own.
func (a *Authority) Issue(name string, edits ...Edit) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return a.IssueFor(key, name, edits...)
}

// IssueFor makes a server's certificate for a key.
func (a *Authority) IssueFor(key crypto.Signer, name string, edits ...Edit) (Pair, error) {
	c, err := template(name)
	if err != nil {
		return Pair{}, err
	}
	return sign(c, key, a, edits)
}

// Pool holds the authority's certificate alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Cert)
	return p
}

// Write puts the authority's certificate into a file in PEM.
func (a *Authority) Write(file string) error {
	return write(file, "CERTIFICATE", a.Cert.Raw, 0o644)
}

// SelfSigned makes a server's certificate that is its own authority.
func SelfSigned(name string, edits ...Edit) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	c, err := template(name)
	if err != nil {
		return Pair{}, err
	}
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage |= x509.KeyUsageCertSign
	return sign(c, key, nil, edits)
}

// Pair is a certificate with its key. Leaf is set.
type Pair struct{ tls.Certificate }

// PEM gives both parts; the key in PKCS #8.
func (p Pair) PEM() (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("key of %s: %w", p.Leaf.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Write puts both parts into files in PEM; that of the key is its owner's alone.
func (p Pair) Write(certFile, keyFile string) error {
	cert, key, err := p.PEM()
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(certFile, cert, 0o644), os.WriteFile(keyFile, key, 0o600))
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, nil
}

// sign signs by the authority, or by the key itself where there is none.
func sign(c *x509.Certificate, key crypto.Signer, by *Authority, edits []Edit) (Pair, error) {
	for _, edit := range edits {
		edit(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate of %s: %w", c.Subject.CommonName, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate of %s: %w", c.Subject.CommonName, err)
	}
	return Pair{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

func write(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
