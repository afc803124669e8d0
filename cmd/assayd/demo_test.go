package main

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// The embedded mapping makes of the embedded file what the file says: subjects,
// visits, conversions and spend by variant.
func TestHillstromMapping(t *testing.T) {
	m, data, err := demoCustomers()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := openCSV(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	header, err := rows.Read()
	if err != nil {
		t.Fatal(err)
	}
	conv, err := m.compile(slices.Clone(header))
	if err != nil {
		t.Fatal(err)
	}
	type sums struct {
		Subjects, Visits, Conversions int
		Spend                         float64
	}
	got := map[string]sums{}
	keys := map[string]bool{}
	for {
		fields, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		line, _ := rows.FieldPos(0)
		e, outcomes, err := conv.convert(row{line, fields})
		if err != nil {
			t.Fatalf("line %d: %v", line, err)
		}
		keys[e.GetSubject().GetKey()] = true
		s := got[e.GetVariant()]
		s.Subjects++
		for _, o := range outcomes {
			switch o.GetName() {
			case "visit":
				s.Visits++
			case "conversion":
				s.Conversions++
			case "spend":
				s.Spend += o.GetValue()
			}
		}
		got[e.GetVariant()] = s
	}
	// Rates and means of the raw file: visits 0.1061673, 0.1827568, 0.1514004;
	// conversions 0.0057261, 0.0125311, 0.0088371; spend 0.6527894, 1.4226165,
	// 1.0772016.
	want := map[string]sums{
		"none":   {21306, 2262, 122, 13908.33},
		"mens":   {21307, 3894, 267, 30311.69},
		"womens": {21387, 3238, 189, 23038.11},
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 0.005 })
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
	if len(keys) != 64_000 {
		t.Errorf("%d different subjects, want 64,000", len(keys))
	}
}

// What the demonstration creates names only what it creates.
func TestDemoDefinitions(t *testing.T) {
	metrics, err := readDemo("demo/metrics.json", func() *assayv1.Metric { return &assayv1.Metric{} })
	if err != nil {
		t.Fatal(err)
	}
	experiments, err := readDemo("demo/experiments.json", func() *assayv1.Experiment { return &assayv1.Experiment{} })
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range metrics {
		known[m.GetKey()] = true
	}
	var keys []string
	for _, x := range experiments {
		keys = append(keys, x.GetKey())
		for _, m := range x.GetMetrics() {
			if !known[m.GetMetric()] {
				t.Errorf("experiment %s names metric %s, which is not created", x.GetKey(), m.GetMetric())
			}
		}
	}
	if diff := cmp.Diff([]string{pastExperiment, liveExperiment}, keys); diff != "" {
		t.Errorf("experiments (-want +got):\n%s", diff)
	}
}

// The printed calls name methods that exist, with requests that they take.
func TestNextSteps(t *testing.T) {
	for _, step := range nextSteps {
		if step.call == "list" {
			continue
		}
		name := protoreflect.FullName(strings.Replace(step.call, "/", ".", 1))
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Errorf("%s: %v", step.call, err)
			continue
		}
		in, err := protoregistry.GlobalTypes.FindMessageByName(d.(protoreflect.MethodDescriptor).Input().FullName())
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal([]byte(step.data), proto.Message(in.New().Interface())); err != nil {
			t.Errorf("%s: %v", step.call, err)
		}
		if strings.Contains(step.data, "'") {
			t.Errorf("%s: the data ends the shell's quotes", step.call)
		}
	}
	var out bytes.Buffer
	printNextSteps(&out, "127.0.0.1:8080")
	if want := "\n  grpcurl -plaintext 127.0.0.1:8080 list\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, out.String())
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080",
		"0.0.0.0:8080":   "127.0.0.1:8080",
		"[::]:8080":      "127.0.0.1:8080",
		"10.1.2.3:80":    "10.1.2.3:80",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("reachable(%q) = %q, want %q", addr, got, want)
		}
	}
}
