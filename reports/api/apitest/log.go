package apitest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store/translog"
)

// testLog is a log of 1024 leaves whose data is their number, signed by its key, and cosigned by a witness at size 1000.
type testLog struct {
	stored  []tlog.Hash
	key     *translog.LogKey
	witness *translog.Cosigner
}

const logSize, cosignedSize = 1024, 1000

func newTestLog() *testLog {
	must := func(err error) {
		if err != nil { // keys that were just made, hashes that stand in memory
			panic(err)
		}
	}
	l := &testLog{}
	skey, _, err := translog.GenerateKey("evidence.example/log")
	must(err)
	l.key, err = translog.NewLogKey(skey)
	must(err)
	wkey, _, err := translog.GenerateKey("witness.example")
	must(err)
	l.witness, err = translog.NewCosigner(wkey, Now)
	must(err)
	for i := range int64(logSize) {
		hashes, err := tlog.StoredHashes(i, leafData(i), l)
		must(err)
		l.stored = append(l.stored, hashes...)
	}
	return l
}

func leafData(i int64) []byte { return fmt.Appendf(nil, "leaf %d", i) }

// ReadHashes gives stored hashes.
func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var list []tlog.Hash
	for _, i := range indexes {
		list = append(list, l.stored[i])
	}
	return list, nil
}

// checkpoint gives the one of a size, with the witness's cosignature if asked for.
func (l *testLog) checkpoint(size int64, cosigned bool) (api.Checkpoint, error) {
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		return api.Checkpoint{}, err
	}
	c := translog.Checkpoint{Origin: l.key.Name(), Size: size, Root: root}
	msg, err := translog.Sign(c, l.key)
	if err == nil && cosigned {
		var line string
		line, err = l.witness.Cosign(c)
		msg = translog.AddSignatures(msg, line)
	}
	return api.Checkpoint{Size: size, Root: root.String(), Time: Now().Add(-3 * time.Second), Note: string(msg)}, err
}

// Proof has those of edge-1, under a cosigned checkpoint of 1024 leaves.
func (e *Estate) Proof(_ context.Context, node string, seq uint64) ([]byte, error) {
	if node != "edge-1" || seq > logSize {
		return nil, fmt.Errorf("%w: event %s:%d", api.ErrNotFound, node, seq)
	}
	c, err := e.log.checkpoint(logSize, true)
	if err != nil {
		return nil, err
	}
	hashes, err := tlog.ProveRecord(logSize, int64(seq-1), e.log)
	if err != nil {
		return nil, err
	}
	return translog.Proof{Index: int64(seq - 1), Hashes: hashes, Extra: leafData(int64(seq - 1)), Checkpoint: []byte(c.Note)}.Text(), e.Err
}

// Checkpoints has sizes 10, 20, 30.
func (e *Estate) Checkpoints(_ context.Context, after int64, limit int) ([]api.Checkpoint, error) {
	var out []api.Checkpoint
	for size := int64(10); size <= 30 && len(out) < limit; size += 10 {
		if size <= after {
			continue
		}
		c, err := e.log.checkpoint(size, false)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, e.Err
}

// Latest has size 1024.
func (e *Estate) Latest(context.Context) (api.Checkpoint, error) {
	c, err := e.log.checkpoint(logSize, false)
	if err != nil {
		return c, err
	}
	return c, e.Err
}

// Consistency has the proofs of a log of 1024 leaves.
func (e *Estate) Consistency(_ context.Context, from, size int64) ([]tlog.Hash, error) {
	if size > logSize {
		return nil, fmt.Errorf("%w: size %d", api.ErrNotFound, size)
	}
	if from == size {
		return nil, e.Err
	}
	return tlog.ProveTree(size, from, e.log)
}

// Log has the newest checkpoint, the log's key, and a witness that cosigned size 1000.
func (e *Estate) Log(ctx context.Context) (api.LogFacts, error) {
	newest, err := e.Latest(ctx)
	if err != nil {
		return api.LogFacts{}, err
	}
	last, err := e.log.checkpoint(cosignedSize, true)
	if err != nil {
		return api.LogFacts{}, err
	}
	consistency, err := tlog.ProveTree(logSize, cosignedSize, e.log)
	if err != nil {
		return api.LogFacts{}, err
	}
	f := api.LogFacts{Newest: &newest, Keys: []string{e.log.key.VerifierKey()},
		Witnesses: []api.WitnessFacts{{Name: "audit-office", Key: e.log.witness.VerifierKey(), Last: &last, Consistency: consistency}}}
	if e.ChangeLog != nil {
		e.ChangeLog(&f)
	}
	return f, nil
}

// custodyOf are 230 accesses, newest first.
func custodyOf() []api.Custody {
	kinds := []struct{ action, by, role, object, detail string }{
		{string(csf.EvidenceExported), "first-auditor", "auditor", "0195f000-2222-7000-8000-000000000001", "format pack, sha256 7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"},
		{string(csf.ReportVerified), "first-auditor", "auditor", "0195f000-2222-7000-8000-000000000001", "format pack, result pass"},
		{string(csf.ReportGenerated), "first-operator", "", "0195f000-2222-7000-8000-000000000001", "format pack, from 2026-01-01T00:00:00Z, to 2026-03-01T00:00:00Z"},
		{string(csf.EvidenceRead), "first-auditor", "auditor", "tls-required", "detail 25 of 4711, seed 9f86d081884c7d65"},
		{string(csf.HoldApplied), "first-operator", "", "case 7", "reason litigation"},
		{string(csf.HoldReleased), "first-approver", "", "case 6", "reason settled"},
		{string(csf.BodyErased), "dpo", "", "", "count 12, reason request 2026-17"},
		{"GET /v1/reports/{id}/download", "first-auditor", "auditor", "r-1", "status 200"},
		{"GET /events/{node}/{seq}/proof", "first-auditor", "auditor", "edge-1/250", "status 200"},
		{"GET /evidence", "<script>alert(1)</script>", "auditor", "", "status 200"},
	}
	var list []api.Custody
	for i := range 230 {
		k := kinds[i%len(kinds)]
		list = append(list, api.Custody{Time: Now().Add(-time.Duration(i) * time.Minute), Node: "edge-1", Seq: uint64(900 - i), By: k.by, Role: k.role, Action: k.action, Object: k.object, Detail: k.detail})
	}
	return list
}

// Custody has 230 accesses; the cursor is the place in the list.
func (e *Estate) Custody(_ context.Context, q api.CustodyQuery) ([]api.Custody, string, error) {
	from := 0
	if q.Cursor != "" {
		var err error
		if from, err = strconv.Atoi(q.Cursor); err != nil {
			return nil, "", fmt.Errorf("%w: not a cursor of this list", api.ErrInvalid)
		}
	}
	list := slices.DeleteFunc(custodyOf(), func(c api.Custody) bool {
		return len(q.Kinds) > 0 && !slices.Contains(q.Kinds, csf.Kind(c.Action)) || q.By != "" && q.By != c.By
	})
	list = list[min(from, len(list)):]
	if len(list) > q.Limit {
		return list[:q.Limit], strconv.Itoa(from + q.Limit), e.Err
	}
	return list, "", e.Err
}
