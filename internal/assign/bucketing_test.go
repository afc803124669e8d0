package assign

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// TestBucketingVectors checks every step against vectors on which a Go and a
// JavaScript program agreed.
func TestBucketingVectors(t *testing.T) {
	f, err := os.Open("testdata/bucketing.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var v struct {
			Unit, Key, Purpose, Salt     string
			SubjectHash, GateHash, Mixed string
			Bucket                       int32
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		subject, gate := hashPair(v.Unit, v.Key), hashPair(v.Purpose, v.Salt)
		mixed := mix(subject, gate)
		got := fmt.Sprintf("%016x %016x %016x %d", subject, gate, mixed, bucketOf(mixed))
		if want := fmt.Sprintf("%s %s %s %d", v.SubjectHash, v.GateHash, v.Mixed, v.Bucket); got != want {
			t.Errorf("%+v: got %s", v, got)
		}
	}
	if n != 32 {
		t.Errorf("read %d vectors, want 32", n)
	}
}

func TestBucketingDoesNotAllocate(t *testing.T) {
	unit, key := "user", "a key that is longer than the 32 bytes that the hash takes at once"
	sum := int32(0)
	if n := testing.AllocsPerRun(100, func() { sum += bucketOf(mix(hashPair(unit, key), hashPair(key, unit))) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
