package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	worstCallers = 32
	worstBytes   = 4<<20 - 1024 // Of a message: just below what the server receives.
	worstLimit   = 512 << 20    // GOMEMLIMIT of the server.
)

// worstMessage is a message that takes as much memory as its method's can.
type worstMessage struct {
	method, name string
	data         encoded
}

// TestWorstMessages sends the worst messages of every unary method from many
// callers at once. The server keeps to its memory, and goes on assigning.
func TestWorstMessages(t *testing.T) {
	t.Setenv("GOMEMLIMIT", strconv.Itoa(worstLimit))
	p := start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir(t))
	addr := p.address(t)
	assigns := connect(t, addr)
	for _, c := range [][3]string{
		{"assay.v1.ExperimentService", "CreateExperiment", `{"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"}]}}`},
		{"assay.v1.ExperimentService", "StartExperiment", `{"key":"plain"}`},
	} {
		if _, err := call(t.Context(), assigns, c[0], c[1], c[2]); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var assigned atomic.Int64
	var assigning sync.WaitGroup
	assigning.Go(func() {
		req := &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u-1"}, Experiments: []string{"plain"}}
		for ctx.Err() == nil {
			if _, err := assayv1.NewAssignmentServiceClient(assigns).Assign(t.Context(), req); err != nil {
				t.Errorf("an assignment failed: %v", err)
				return
			}
			assigned.Add(1)
		}
	})

	messages := append(worstOfAll(worstBytes), manyFaults(t))
	// The largest are not decoded. Smaller ones are, and go as far as they get.
	all := append(worstOfAll(worstBytes/8), messages...)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	answers := sendWorst(t, addr, all)
	// Then those that are worst of all, from all callers at once.
	for _, m := range messages {
		if slices.Contains(worstOfThese, m.method+m.name) {
			for code, n := range sendWorst(t, addr, slices.Repeat([]worstMessage{m}, worstCallers)) {
				answers[code] += n
			}
		}
	}
	cancel()
	assigning.Wait()
	t.Logf("%d kinds of messages, answered %v, with %d assignments beside; %d MiB at most", len(messages), answers, assigned.Load(), peakBytes(t, p)>>20)
	for code := range answers {
		if !slices.Contains([]codes.Code{codes.OK, codes.InvalidArgument, codes.ResourceExhausted, codes.NotFound, codes.FailedPrecondition}, code) {
			t.Errorf("messages were answered with %v", code)
		}
	}
	if answers[codes.InvalidArgument] == 0 || assigned.Load() == 0 {
		t.Error("nothing was refused, or nothing assigned")
	}
	// What is received and copied into one piece comes on top of Go's limit, which
	// is a soft one.
	if peak, most := peakBytes(t, p), int64(worstLimit+2*worstCallers*worstBytes); peak > most {
		t.Errorf("the server took %d MiB, more than %d", peak>>20, most>>20)
	}
}

// worstOfThese are the messages that once took a server of 2.5 GiB down.
var worstOfThese = []string{
	"/assay.v1.EventService/RecordOutcomes.outcomes",
	"/assay.v1.EventService/RecordOutcomes.outcomes.properties.fields.value.list_value.values",
	"/assay.v1.AssignmentService/BatchAssign.subjects",
	"/assay.v1.AssignmentService/Assign.subject.attributes.fields.value.list_value.values",
	"/assay.v1.AnalysisService/CompareSummaries of faults",
}

// manyFaults is a message each number of which breaks a rule.
func manyFaults(t *testing.T) worstMessage {
	t.Helper()
	stratum := &assayv1.SummaryStratum{Means: slices.Repeat([]float64{math.NaN()}, 7)}
	arm := &assayv1.SummaryArm{Strata: slices.Repeat([]*assayv1.SummaryStratum{stratum}, 1000)}
	data, err := proto.Marshal(&assayv1.CompareSummariesRequest{Arms: slices.Repeat([]*assayv1.SummaryArm{arm}, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return worstMessage{assayv1.AnalysisService_CompareSummaries_FullMethodName, " of faults", data}
}

// sendWorst sends messages from many callers, each with a connection of its own, and
// counts the answers. The server closes connections while all that it has of unfinished
// messages is too much: what was cut off so is sent again, until it is answered.
func sendWorst(t *testing.T, addr string, messages []worstMessage) map[codes.Code]int {
	t.Helper()
	var mu sync.Mutex
	answers := map[codes.Code]int{}
	waiting := make(chan worstMessage, len(messages))
	for _, m := range messages {
		waiting <- m
	}
	close(waiting)
	var callers sync.WaitGroup
	for range worstCallers {
		conn := connect(t, addr)
		callers.Go(func() {
			for m := range waiting {
				code := codes.Unavailable
				for try := 0; code == codes.Unavailable && try < 100; try++ {
					err := conn.Invoke(t.Context(), m.method, m.data, &emptypb.Empty{}, grpc.ForceCodecV2(encodedCodec{}), grpc.WaitForReady(true))
					if code = status.Code(err); code == codes.Internal {
						t.Logf("%s%s: %v", m.method, m.name, err)
					}
				}
				mu.Lock()
				answers[code]++
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	return answers
}

// worstOfAll returns messages of so many bytes of every unary method of this API:
// for each list and map that its request leads to, one with nothing but empty
// elements.
func worstOfAll(bytes int) (messages []worstMessage) {
	content := map[protowire.Number]encoded{}
	empties := func(number protowire.Number) encoded {
		if content[number] == nil {
			one := protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), nil)
			content[number] = slices.Repeat(one, bytes/len(one))
		}
		return content[number]
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for k := range service.Methods().Len() {
				m := service.Methods().Get(k)
				if m.IsStreamingClient() || m.IsStreamingServer() || file.Package() == "grpc.health.v1" {
					continue
				}
				method := fmt.Sprintf("/%s/%s", service.FullName(), m.Name())
				walkLists(m.Input(), "", nil, func(name string, path []protowire.Number) {
					data := empties(path[len(path)-1])
					for _, number := range slices.Backward(path[:len(path)-1]) {
						data = protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), data)
					}
					messages = append(messages, worstMessage{method, name, data})
				})
			}
		}
		return true
	})
	return messages
}

// walkLists calls f with each list and map of a message and of those in it, and
// the field numbers that lead there.
func walkLists(md protoreflect.MessageDescriptor, name string, path []protowire.Number, f func(string, []protowire.Number)) {
	if len(path) > 6 {
		return
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		here, way := name+"."+string(fd.Name()), append(slices.Clone(path), fd.Number())
		if (fd.IsList() || fd.IsMap()) && fd.Message() != nil {
			f(here, way)
		}
		if fd.Message() != nil && (fd.Message().FullName() != md.FullName()) {
			walkLists(fd.Message(), here, way, f)
		}
	}
}

// peakBytes returns the most memory that a process held.
func peakBytes(t testing.TB, p *process) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	kB, err := strconv.ParseInt(string(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}
