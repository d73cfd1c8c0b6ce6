package store

import "context"

// Cosigned gives, among the checkpoints of at least a size, the one that the most of some witnesses' keys cosigned, the
// smallest among equals, and by how many; false when none of them did. keyIDs are hexadecimal (translog.Cosignature).
func (d *DB) Cosigned(ctx context.Context, least int64, keyIDs []string) (c Checkpoint, keys int, ok bool, err error) {
	c, ok, err = d.checkpoint(ctx, `where c.size = (select s.size from csfproxy.cosignatures s where s.size >= $1 and s.key_id = any($2)
		group by s.size order by count(*) desc, s.size limit 1)`, least, nonNil(keyIDs))
	if err != nil || !ok {
		return Checkpoint{}, 0, false, err
	}
	list, err := d.Cosignatures(ctx, c.Size)
	for _, s := range list {
		for _, id := range keyIDs {
			if s.KeyID == id {
				keys++
			}
		}
	}
	return c, keys, err == nil, err
}
