package csf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// OfficialCatalog holds NIST's own texts, read from NIST's OSCAL catalog of CSF 2.0.
type OfficialCatalog struct {
	Title   string
	Version string // of the catalog file
	SHA256  string // of the file, hexadecimal
	texts   map[string]string
}

// catalogBytes bounds the file that LoadCatalog reads; NIST's catalog is about 320 KB.
const catalogBytes = 16 << 20

// Text gives NIST's statement of the outcome, "" without a catalog or for an unknown id.
func (c *OfficialCatalog) Text(id string) string {
	if c == nil {
		return ""
	}
	return c.texts[id]
}

type oscalControl struct {
	ID    string `json:"id"`
	Class string `json:"class"`
	Props []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"props"`
	Parts []struct {
		Name  string `json:"name"`
		Prose string `json:"prose"`
	} `json:"parts"`
	Groups   []oscalControl `json:"groups"`
	Controls []oscalControl `json:"controls"`
}

// LoadCatalog reads NIST's OSCAL catalog of CSF 2.0 in its JSON form. The file must hold a statement for each
// of the 106 subcategories; what it holds beside them (identifiers that 2.0 withdrew) is left out.
func LoadCatalog(file string) (*OfficialCatalog, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("CSF catalog: %w", err)
	}
	if info.Size() > catalogBytes {
		return nil, fmt.Errorf("CSF catalog %s: %d bytes are more than a catalog has (%d)", file, info.Size(), catalogBytes)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CSF catalog: %w", err)
	}
	c, err := parseCatalog(data)
	if err != nil {
		return nil, fmt.Errorf("CSF catalog %s: %w", file, err)
	}
	return c, nil
}

func parseCatalog(data []byte) (*OfficialCatalog, error) {
	var doc struct {
		Catalog struct {
			Metadata struct {
				Title   string `json:"title"`
				Version string `json:"version"`
			} `json:"metadata"`
			Groups []oscalControl `json:"groups"`
		} `json:"catalog"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("no OSCAL catalog in JSON: %w", err)
	}
	sum := sha256.Sum256(data)
	c := &OfficialCatalog{
		Title: doc.Catalog.Metadata.Title, Version: doc.Catalog.Metadata.Version,
		SHA256: hex.EncodeToString(sum[:]), texts: map[string]string{},
	}
	var walk func([]oscalControl)
	walk = func(list []oscalControl) {
		for _, o := range list {
			if _, live := subcategoryIndex[o.ID]; live {
				for _, p := range o.Parts {
					if p.Name == "statement" && c.texts[o.ID] == "" {
						c.texts[o.ID] = p.Prose
					}
				}
			}
			walk(o.Groups)
			walk(o.Controls)
		}
	}
	walk(doc.Catalog.Groups)
	var missing []string
	for _, s := range subcategoryTable {
		if c.texts[s.ID] == "" {
			missing = append(missing, s.ID)
		}
	}
	if len(missing) > 0 {
		n := len(missing)
		return nil, fmt.Errorf("not the catalog of CSF 2.0: %d of %d subcategories have no statement, first %s",
			n, len(subcategoryTable), strings.Join(slices.Clip(missing[:min(n, 5)]), ", "))
	}
	return c, nil
}
