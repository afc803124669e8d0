package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

//go:embed demo/hillstrom.csv.gz demo/hillstrom.yaml demo/metrics.json demo/experiments.json
var demoFiles embed.FS

const (
	pastExperiment = "hillstrom"
	liveExperiment = "checkout-copy"
)

// runDemo serves as `serve` does, and beside it does as a client what a
// newcomer would: it measures a past experiment and starts a live one. On a
// data directory that it has seen before it changes nothing.
func runDemo(ctx context.Context, args []string, e env) error {
	s, err := parseSettings("demo", args, e)
	if err != nil {
		return err
	}
	ready := make(chan string, 1)
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		return serve(running, s, func(addr string) { ready <- addr })
	})
	g.Go(func() error {
		select {
		case addr := <-ready:
			err := demonstrate(running, reachable(addr), e)
			if running.Err() != nil {
				return nil // The server's end is the cause, or the user's wish.
			}
			return err
		case <-running.Done():
			return nil
		}
	})
	return g.Wait()
}

// reachable turns the address of a listener into one to call.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// demo is a client of the demonstration's server.
type demo struct {
	metrics     assayv1.MetricServiceClient
	experiments assayv1.ExperimentServiceClient
	analysis    assayv1.AnalysisServiceClient
}

// demonstrate runs the demonstration against a server.
func demonstrate(ctx context.Context, target string, e env) error {
	conn, err := dial(target)
	if err != nil {
		return err
	}
	defer conn.Close()
	d := demo{
		metrics:     assayv1.NewMetricServiceClient(conn),
		experiments: assayv1.NewExperimentServiceClient(conn),
		analysis:    assayv1.NewAnalysisServiceClient(conn),
	}
	if err := d.createMetrics(ctx); err != nil {
		return err
	}
	if err := d.startExperiments(ctx); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "Importing experiment %s: 64,000 customers and what they did.\n\n", pastExperiment)
	if err := importDemo(ctx, conn, e); err != nil {
		return err
	}
	a, err := d.analysis.AnalyzeExperiment(ctx, &assayv1.AnalyzeExperimentRequest{
		Experiment: pastExperiment, Segments: []string{"newbie", "zip_code", "history_segment"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	printAnalysis(e.stdout, a)
	if err := d.printMethods(ctx, e.stdout); err != nil {
		return err
	}
	printNextSteps(e.stdout, target)
	return nil
}

func (d *demo) createMetrics(ctx context.Context) error {
	metrics, err := readDemo("demo/metrics.json", func() *assayv1.Metric { return &assayv1.Metric{} })
	if err != nil {
		return err
	}
	for _, m := range metrics {
		_, err := d.metrics.CreateMetric(ctx, &assayv1.CreateMetricRequest{Metric: m})
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create metric %s: %w", m.GetKey(), err)
		}
	}
	return nil
}

func (d *demo) startExperiments(ctx context.Context) error {
	experiments, err := readDemo("demo/experiments.json", func() *assayv1.Experiment { return &assayv1.Experiment{} })
	if err != nil {
		return err
	}
	for _, x := range experiments {
		_, err := d.experiments.CreateExperiment(ctx, &assayv1.CreateExperimentRequest{Experiment: x})
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create experiment %s: %w", x.GetKey(), err)
		}
		if err := d.start(ctx, x.GetKey()); err != nil {
			return fmt.Errorf("start experiment %s: %w", x.GetKey(), err)
		}
	}
	return nil
}

// start starts a draft. What an earlier run started, or a user changed since,
// is left as it is.
func (d *demo) start(ctx context.Context, key string) error {
	got, err := d.experiments.GetExperiment(ctx, &assayv1.GetExperimentRequest{Key: key})
	if err != nil {
		return err
	}
	if got.GetExperiment().GetState() == assayv1.State_STATE_DRAFT {
		_, err = d.experiments.StartExperiment(ctx, &assayv1.StartExperimentRequest{Key: key})
	}
	return err
}

func importDemo(ctx context.Context, conn *grpc.ClientConn, e env) error {
	m, data, err := demoCustomers()
	if err != nil {
		return err
	}
	t, err := importRows(ctx, conn, m, bytes.NewReader(data), int64(len(data)), e.stderr)
	if err != nil {
		return err
	}
	printTally(e.stdout, t)
	return t.err()
}

// demoCustomers returns the embedded customers as compressed CSV, and what its
// columns mean.
func demoCustomers() (*mapping, []byte, error) {
	text, err := demoFiles.ReadFile("demo/hillstrom.yaml")
	if err != nil {
		return nil, nil, err
	}
	m, err := parseMapping(text)
	if err != nil {
		return nil, nil, fmt.Errorf("hillstrom.yaml: %w", err)
	}
	data, err := demoFiles.ReadFile("demo/hillstrom.csv.gz")
	return m, data, err
}

// readDemo reads an embedded JSON array of messages.
func readDemo[M proto.Message](name string, newMessage func() M) ([]M, error) {
	text, err := demoFiles.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	messages := make([]M, len(raw))
	for i := range raw {
		messages[i] = newMessage()
		err = errors.Join(err, protojson.Unmarshal(raw[i], messages[i]))
	}
	return messages, err
}

// nextSteps are calls to go on with: their data, which may be empty, and what
// they call.
var nextSteps = []struct{ title, data, call string }{
	{"List the services.", "", "list"},
	{"Ask which variant a customer gets.",
		`{"subject":{"key":"u-1","attributes":{"country":"PL","age":31}},"experiments":["` + liveExperiment + `"]}`,
		"assay.v1.AssignmentService/Assign"},
	{"Analyse the imported experiment, also by segment.",
		`{"experiment":"` + pastExperiment + `","segments":["newbie"]}`,
		"assay.v1.AnalysisService/AnalyzeExperiment"},
}

func printNextSteps(w io.Writer, target string) {
	fmt.Fprintf(w, "\nThe server listens on %s; experiment %s is running. To go on:\n", target, liveExperiment)
	for _, step := range nextSteps {
		data := ""
		if step.data != "" {
			data = "-d '" + step.data + "' "
		}
		fmt.Fprintf(w, "\n  # %s\n  grpcurl -plaintext %s%s %s\n", step.title, data, target, step.call)
	}
	fmt.Fprintln(w, "\nCtrl-C stops it.")
}
