package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

// killChild names the spool directory in the environment of the process that TestKilledProcess kills.
const killChild = "CSFPROXY_TEST_SPOOL_CHILD"

// appendForever is that process: it says the number of each event after it was acknowledged.
func appendForever(dir string) error {
	s, _, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1", Durability: Durability(os.Getenv(killChild + "_MODE")), SegmentBytes: 30_000})
	if err != nil {
		return err
	}
	for {
		// Others hand over beside it, so that the kill meets writes of several records.
		for range 5 {
			if _, err := s.Append(csf.Event{Kind: csf.SessionClosed, Facts: csf.Facts{"bytes_in": 1}}); err != nil {
				return err
			}
		}
		seq, err := s.AppendDurable(context.Background(), csf.Event{Kind: csf.ConnAccepted})
		if err != nil {
			return err
		}
		fmt.Println(seq)
	}
}

func TestKilledProcess(t *testing.T) {
	for _, mode := range []Durability{Batch, Sync} {
		t.Run(string(mode), func(t *testing.T) {
			dir := t.TempDir()
			for round := range 5 {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), killChild+"="+dir, killChild+"_MODE="+string(mode))
				cmd.Stderr = os.Stderr
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var acknowledged uint64
				lines := bufio.NewScanner(out)
				for n := 0; n < 40+37*round && lines.Scan(); n++ {
					acknowledged, err = strconv.ParseUint(lines.Text(), 10, 64)
					if err != nil {
						t.Fatal(err)
					}
				}
				cmd.Process.Kill()
				for lines.Scan() { // said before it died
					if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
						acknowledged = n
					}
				}
				cmd.Wait()

				s, rec, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1"})
				if err != nil {
					t.Fatal(err)
				}
				if rec.Clean {
					t.Errorf("round %d: a killed run counts as clean", round)
				}
				if acknowledged == 0 || rec.LastSeq < acknowledged {
					t.Errorf("round %d: %d was acknowledged, the spool ends at %d", round, acknowledged, rec.LastSeq)
				}
				if first, last := numbers(t, s); first != 1 || last != rec.LastSeq {
					t.Errorf("round %d: numbers %d to %d of %d", round, first, last, rec.LastSeq)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
