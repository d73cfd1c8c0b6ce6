package pack

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/csfproxy/csfproxy/reports"
)

// FormatVersion is what manifest.json names; a reader refuses another.
const FormatVersion = "csfproxy-pack/1"

// The files of a pack. Chunks of leaves stand under leavesDir, proofs of single leaves under proofsDir.
const (
	fileManifest   = "manifest.json"
	fileSignature  = "manifest.sig"
	fileCheckpoint = "checkpoint.txt"
	filePrevious   = "previous.json"
	fileKeys       = "keys.json"
	fileRange      = "range.json"
	fileBodies     = "bodies.zst"
	fileSamples    = "samples.jsonl"
	fileInput      = "input.json"
	fileModel      = "model.json"
	fileCoverage   = "coverage.json"
	fileCustody    = "custody.jsonl"
	fileReadme     = "README.txt"
	leavesDir      = "leaves/"
	proofsDir      = "proofs/"
	reportPrefix   = "report."
)

// Limits of a pack. A verifier holds no more than these in memory, whatever the file says.
const (
	maxFiles       = 200_000
	maxJSONBytes   = 256 << 20 // model, custody, samples
	maxReportBytes = 4 << 30   // a rendering, streamed
	maxNoteBytes   = 64 << 10
	maxPackBytes   = 1 << 40
	// A chunk ends with the leaf that reaches one of these.
	chunkLeaves   = 8192
	chunkBytes    = 16 << 20
	maxLeafBytes  = 1<<20 + 1024 // an event's payload is at most 1 MiB (package store)
	maxBodyBytes  = 256 << 20    // all disclosed bodies together
	maxBodies     = 500_000
	maxRatio      = 300 // expanded to compressed; beyond it is a bomb: the text of real packs stays below 50
	maxProofBytes = 256 << 10
)

// Margin is how long a node may take to record a fact, and how far its clock may step back, for the proof of
// completeness to hold: the range of leaves reaches that far beyond both ends of the period.
const Margin = 10 * time.Minute

// File is one entry of the manifest.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Manifest lists every other file of the pack but its own signature.
type Manifest struct {
	Format  string    `json:"format"`
	Made    time.Time `json:"made"`
	By      string    `json:"by"`
	Program string    `json:"program"`
	Files   []File    `json:"files"`
}

// Chunk is one file of leaves.
type Chunk struct {
	File  string `json:"file"`
	First int64  `json:"first"` // index of its first leaf
	Count int64  `json:"count"`
}

// Range says which leaves the pack holds and how they join the tree.
type Range struct {
	// Size is that of the checkpoint's tree; First and Last are included. First > Last: the tree is empty.
	Size  int64 `json:"size"`
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Left and Right are the hashes of the perfect subtrees that cover the leaves before First and after Last, from
	// left to right, in base64: the compact ranges [0, First) and [Last+1, Size).
	Left  []string `json:"left"`
	Right []string `json:"right"`
	// MarginSeconds is Margin when the range was chosen.
	MarginSeconds int64 `json:"margin_s"`
	// Pruned says that leaves before First are no longer stored, so that the range could not begin earlier.
	Pruned bool    `json:"pruned,omitempty"`
	Chunks []Chunk `json:"chunks"`
}

// Keys are the public keys that the pack was signed under. A reader who has the key from elsewhere passes it to
// Verify; the ones in the pack only say what the maker claims.
type Keys struct {
	Log       []string `json:"log"`       // verifier keys of the log, newest first
	Witnesses []string `json:"witnesses"` // verifier keys of the witnesses
	// Handovers are notes by which one key of the log named the next (store/translog).
	Handovers []string `json:"handovers,omitempty"`
}

// Previous ties the pack to the one before it.
type Previous struct {
	// Checkpoint is the signed note of the previous pack, Hashes the RFC 6962 consistency proof from its tree to this one.
	Checkpoint string   `json:"checkpoint"`
	Hashes     []string `json:"hashes"`
	// ManifestSHA256 is of the previous pack's manifest.json, and Period the one that it is about.
	ManifestSHA256 string         `json:"manifest_sha256,omitempty"`
	Period         reports.Period `json:"period"`
}

// Input is what the report was made from beside the leaves; the operator states it.
type Input struct {
	Title        string              `json:"title,omitempty"`
	Scope        string              `json:"scope,omitempty"`
	Period       reports.Period      `json:"period"`
	Now          time.Time           `json:"now"`
	By           string              `json:"by"`
	Generator    string              `json:"generator"`
	ConfigSHA256 string              `json:"config_sha256"`
	Mapping      string              `json:"mapping_version"`
	Catalog      *Catalog            `json:"catalog,omitempty"`
	Registers    []reports.Entry     `json:"registers"`
	Exceptions   []reports.Exception `json:"exceptions"`
	CheckpointAt time.Time           `json:"checkpoint_time,omitzero"`
	Held         string              `json:"held,omitempty"`
	Erased       int64               `json:"erased,omitempty"`
	SampleSize   int                 `json:"sample_size,omitempty"`
	// Spooled is the highest number that each node's spool had given out.
	Spooled map[string]uint64 `json:"spooled,omitempty"`
	// IdentityUses counts the sessions of each registered identity. Who a session belongs to stands in its body, so a
	// verifier checks their sum and not each.
	IdentityUses map[string]reports.Count `json:"identity_uses"`
}

// Catalog holds NIST's texts where the report used them.
type Catalog struct {
	Title   string            `json:"title"`
	Version string            `json:"version"`
	SHA256  string            `json:"sha256"`
	Texts   map[string]string `json:"texts"`
}

// SampleLine is one drawn event in samples.jsonl.
type SampleLine struct {
	Control string `json:"control"`
	Place   int64  `json:"place"` // in the control's population, from 0
	Leaf    int64  `json:"leaf"`
	Event   string `json:"event"` // node/sequence
	// Proof names the file with the leaf's inclusion proof; Body says whether its body is disclosed.
	Proof string `json:"proof"`
	Body  bool   `json:"body"`
}

// Failure says what is wrong with a pack, and where.
type Failure struct {
	// Where names the file, leaf, cell or member.
	Where string `json:"where"`
	What  string `json:"what"`
}

// Error gives both.
func (f *Failure) Error() string { return f.Where + ": " + f.What }

// wrong makes a failure.
func wrong(where, format string, args ...any) error {
	return &Failure{where, fmt.Sprintf(format, args...)}
}

// indented renders JSON as the pack's files hold it.
func indented(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
