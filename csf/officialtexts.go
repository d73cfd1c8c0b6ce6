package csf

import "maps"

// CatalogOf gives a catalog of texts that were read elsewhere, such as those that an evidence pack holds. It does not
// check that there is one for each subcategory.
func CatalogOf(title, version, sha256 string, texts map[string]string) *OfficialCatalog {
	return &OfficialCatalog{Title: title, Version: version, SHA256: sha256, texts: maps.Clone(texts)}
}
