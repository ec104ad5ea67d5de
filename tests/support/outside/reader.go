// Reads our ledger with code that is not ours: golang.org/x/mod/sumdb/{note,tlog}. Built by setup.py; run by the tests.
//
//	reader folder DIR VKEY ORIGIN      every tile and entry against the signed head
//	reader receipt FILE VKEY ORIGIN    a c2sp.org/tlog-proof
//	reader consistent DIR VKEY ORIGIN OLDSIZE OLDROOT HASH...    our proof from an older head to the signed one
//	reader vectors SIZE                heads and proofs over the entries "0", "1", ... as JSON
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// folder serves tiles from files, under the paths of tlog-tiles: without the height, and with "entries" for "data".
type folder string

func (f folder) Height() int                         { return 8 }
func (f folder) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (f folder) read(tile tlog.Tile) ([]byte, error) {
	path := strings.Replace(strings.TrimPrefix(tile.Path(), "tile/8/"), "data/", "entries/", 1)
	return os.ReadFile(filepath.Join(string(f), "tile", path))
}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := f.read(tile)
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s holds %d bytes", tile.Path(), len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func head(data []byte, vkey, origin string) (tree tlog.Tree, err error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != origin {
		return tree, fmt.Errorf("not a checkpoint of %s", origin)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func entries(data []byte) (all [][]byte, err error) {
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("a bundle ends inside an entry")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		all, data = append(all, data[2:end]), data[end:]
	}
	return all, nil
}

func checkFolder(dir, vkey, origin string) error {
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := head(signed, vkey, origin)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, folder(dir))
	for first := int64(0); first < tree.N; first += 256 {
		width := int(tree.N - first)
		if width > 256 {
			width = 256
		}
		data, err := folder(dir).read(tlog.Tile{H: 8, L: -1, N: first / 256, W: width})
		if err != nil {
			return err
		}
		bundle, err := entries(data)
		if err != nil || len(bundle) != width {
			return fmt.Errorf("bundle at %d: %d entries, %v", first, len(bundle), err)
		}
		var indexes []int64
		for at := range bundle {
			indexes = append(indexes, tlog.StoredHashIndex(0, first+int64(at)))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for at, entry := range bundle {
			if tlog.RecordHash(entry) != hashes[at] {
				return fmt.Errorf("entry %d does not hash to its leaf", first+int64(at))
			}
		}
	}
	if tree.N > 0 {
		root, err := tlog.TreeHash(tree.N, reader)
		if err != nil || root != tree.Hash {
			return fmt.Errorf("the root is %v, %v", root, err)
		}
	}
	fmt.Println("ok", tree.N)
	return nil
}

func checkReceipt(file, vkey, origin string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte("\n\n"))
	if at < 0 {
		return errors.New("no empty line")
	}
	lines := strings.Split(string(data[:at]), "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("no tlog-proof")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	proof, err := hashes(lines[3:])
	if err != nil {
		return err
	}
	tree, err := head(data[at+2:], vkey, origin)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(tlog.RecordProof(proof), tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	fmt.Println("ok", index)
	return nil
}

func checkConsistent(dir, vkey, origin, size, root string, proof []string) error {
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := head(signed, vkey, origin)
	if err != nil {
		return err
	}
	old, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	read, err := hashes(append(proof, root))
	if err != nil {
		return err
	}
	last := len(read) - 1
	if err := tlog.CheckTree(tlog.TreeProof(read[:last]), tree.N, tree.Hash, old, read[last]); err != nil {
		return err
	}
	fmt.Println("ok", tree.N)
	return nil
}

func hashes(lines []string) (read []tlog.Hash, err error) {
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		read = append(read, hash)
	}
	return read, nil
}

func vectors(size int64) error {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	type row map[string]interface{}
	var heads, records, trees []row
	for n := int64(0); n < size; n++ {
		made, err := tlog.StoredHashes(n, []byte(strconv.FormatInt(n, 10)), reader)
		if err != nil {
			return err
		}
		stored = append(stored, made...)
		root, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			return err
		}
		heads = append(heads, row{"size": n + 1, "root": root.String()})
		for old := int64(0); old <= n; old++ {
			record, err := tlog.ProveRecord(n+1, old, reader)
			if err != nil {
				return err
			}
			records = append(records, row{"size": n + 1, "index": old, "proof": texts(record)})
			tree, err := tlog.ProveTree(n+1, old+1, reader)
			if err != nil {
				return err
			}
			trees = append(trees, row{"size": n + 1, "old": old + 1, "proof": texts(tree)})
		}
	}
	return json.NewEncoder(os.Stdout).Encode(row{"heads": heads, "inclusion": records, "consistency": trees})
}

func texts(hashes []tlog.Hash) []string {
	printed := []string{}
	for _, hash := range hashes {
		printed = append(printed, hash.String())
	}
	return printed
}

func main() {
	err := errors.New("usage: reader folder|receipt|consistent|vectors ...")
	args := os.Args[1:]
	switch {
	case len(args) == 4 && args[0] == "folder":
		err = checkFolder(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "receipt":
		err = checkReceipt(args[1], args[2], args[3])
	case len(args) >= 6 && args[0] == "consistent":
		err = checkConsistent(args[1], args[2], args[3], args[4], args[5], args[6:])
	case len(args) == 2 && args[0] == "vectors":
		var size int64
		if size, err = strconv.ParseInt(args[1], 10, 64); err == nil {
			err = vectors(size)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}
