package translog

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight is the height of tiles: a full one holds 256 hashes.
const TileHeight = 8

// TileWidth is the number of hashes in a full tile.
const TileWidth = 1 << TileHeight

// TileSource gives the hashes of tiles. A tile that is asked for with width w has at least w hashes of 32 bytes, in
// order; more than asked for may come.
type TileSource interface {
	Tiles(ctx context.Context, tiles []tlog.Tile) ([][]byte, error)
}

// HashReader reads the tree's stored hashes from tiles. It does not check them: the root that is computed from them is
// what must equal a signed one.
func HashReader(ctx context.Context, src TileSource, size int64) tlog.HashReader {
	known := map[tlog.Tile][]byte{}
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		tiles := make([]tlog.Tile, len(indexes))
		var missing []tlog.Tile
		for i, x := range indexes {
			tiles[i] = Widen(tlog.TileForIndex(TileHeight, x), size)
			if _, ok := known[tiles[i]]; !ok {
				known[tiles[i]] = nil
				missing = append(missing, tiles[i])
			}
		}
		if len(missing) > 0 {
			data, err := src.Tiles(ctx, missing)
			if err != nil {
				clear(known)
				return nil, err
			}
			for i, t := range missing {
				known[t] = data[i]
			}
		}
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			t := tiles[i]
			data := known[t]
			if len(data) < t.W*tlog.HashSize {
				return nil, fmt.Errorf("tile %s has %d hashes, %d are needed: %w", t.Path(), len(data)/tlog.HashSize, t.W, ErrTile)
			}
			h, err := tlog.HashFromTile(t, data[:t.W*tlog.HashSize], x)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrTile, err)
			}
			out[i] = h
		}
		return out, nil
	})
}

// ErrTile is the error of a tile that is missing or too short.
var ErrTile = errors.New("the log's tiles are damaged")

// Widen gives the tile as wide as it is in a tree of the size.
func Widen(t tlog.Tile, size int64) tlog.Tile {
	n := size >> (TileHeight * t.L) // hashes at the tile's level
	t.W = int(min(n-t.N*TileWidth, TileWidth))
	return t
}

// Edge is the right edge of a tree: enough to append to it and to compute its root. It belongs to one goroutine.
type Edge struct {
	size  int64
	tiles [][]byte // by level: the hashes of the last tile, which is not full
	grown map[tlog.Tile][]byte
}

// NewEdge reads the right edge of the tree with size leaves.
func NewEdge(ctx context.Context, src TileSource, size int64) (*Edge, error) {
	e := &Edge{size: size, grown: map[tlog.Tile][]byte{}}
	var want []tlog.Tile
	var levels []int
	for l := 0; l == 0 || size>>(TileHeight*l) > 0; l++ {
		e.tiles = append(e.tiles, nil)
		n := size >> (TileHeight * l)
		if w := int(n % TileWidth); w > 0 {
			want = append(want, tlog.Tile{H: TileHeight, L: l, N: n / TileWidth, W: w})
			levels = append(levels, l)
		}
	}
	if len(want) == 0 {
		return e, nil
	}
	data, err := src.Tiles(ctx, want)
	if err != nil {
		return nil, err
	}
	for i, t := range want {
		if len(data[i]) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %s has %d hashes, %d are needed: %w", t.Path(), len(data[i])/tlog.HashSize, t.W, ErrTile)
		}
		e.tiles[levels[i]] = append([]byte(nil), data[i][:t.W*tlog.HashSize]...)
	}
	return e, nil
}

// Size is the number of leaves.
func (e *Edge) Size() int64 { return e.size }

// Append adds the hashes of leaves at the end.
func (e *Edge) Append(leaves ...tlog.Hash) {
	for i := range leaves {
		e.push(0, e.size, &leaves[i])
		e.size++
	}
}

// push adds a hash to a level of tiles; n is how many the level has.
func (e *Edge) push(level int, n int64, h *tlog.Hash) {
	if level == len(e.tiles) {
		e.tiles = append(e.tiles, nil)
	}
	e.tiles[level] = append(e.tiles[level], h[:]...)
	if len(e.tiles[level]) < TileWidth*tlog.HashSize {
		return
	}
	full := e.tiles[level]
	e.tiles[level] = nil
	e.grown[tlog.Tile{H: TileHeight, L: level, N: n / TileWidth, W: TileWidth}] = full
	root := TileRoot(full)
	e.push(level+1, n/TileWidth, &root)
}

// Grown gives the tiles that Append made or lengthened since the last call, each as wide as it is now.
func (e *Edge) Grown() map[tlog.Tile][]byte {
	out := e.grown
	e.grown = map[tlog.Tile][]byte{}
	for l, data := range e.tiles {
		if len(data) > 0 {
			n := e.size >> (TileHeight * l)
			out[tlog.Tile{H: TileHeight, L: l, N: n / TileWidth, W: len(data) / tlog.HashSize}] = append([]byte(nil), data...)
		}
	}
	return out
}

// Root computes the tree's root from the edge: the subtrees of each level, joined from the smallest to the largest.
func (e *Edge) Root() tlog.Hash {
	var root tlog.Hash
	have := false
	for _, data := range e.tiles {
		// A tile of w hashes holds the perfect subtrees of the bits of w, the largest first.
		for end := len(data) / tlog.HashSize; end > 0; {
			w := end & -end
			h := TileRoot(data[(end-w)*tlog.HashSize : end*tlog.HashSize])
			if have {
				h = tlog.NodeHash(h, root)
			}
			root, have = h, true
			end -= w
		}
	}
	if !have {
		return EmptyRoot()
	}
	return root
}

// EmptyRoot is the root of a tree without leaves.
func EmptyRoot() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil { // the library reads nothing for it
		panic(err)
	}
	return h
}

// TileRoot is the root over hashes of 32 bytes, a power of two of them: of a full tile, the hash in the tile above it.
func TileRoot(data []byte) tlog.Hash {
	n := len(data) / tlog.HashSize
	if n == 1 {
		return tlog.Hash(data)
	}
	level := make([]tlog.Hash, n/2)
	for i := range level {
		level[i] = tlog.NodeHash(tlog.Hash(data[2*i*tlog.HashSize:]), tlog.Hash(data[(2*i+1)*tlog.HashSize:]))
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = tlog.NodeHash(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	return level[0]
}
