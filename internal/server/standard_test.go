package server_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

func TestHealth(t *testing.T) {
	a := newAPI(t)
	health := grpc_health_v1.NewHealthClient(a.conn)
	got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", got, err)
	}
	if _, err = health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of an unknown service: %v", err)
	}
}

// TestReflection asks what is served, by both versions of the protocol. Their
// messages are alike on the wire.
func TestReflection(t *testing.T) {
	a := newAPI(t)
	want := []string{
		"assay.v1.AnalysisService", "assay.v1.AssignmentService", "assay.v1.AuditService", "assay.v1.EventService", "assay.v1.ExperimentService", "assay.v1.HoldoutService", "assay.v1.LayerService", "assay.v1.MetricService", "assay.v1.RosterService", "assay.v1.SubjectService",
		"flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	}
	for _, version := range []string{"v1", "v1alpha"} {
		stream, err := a.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
		if err != nil {
			t.Fatal(err)
		}
		ask := func(req *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
			t.Helper()
			if err := stream.SendMsg(req); err != nil {
				t.Fatal(err)
			}
			resp := new(grpc_reflection_v1.ServerReflectionResponse)
			if err := stream.RecvMsg(resp); err != nil {
				t.Fatal(err)
			}
			return resp
		}
		var got []string
		list := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		for _, s := range list.GetListServicesResponse().GetService() {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", version, got, want)
		}
		for _, name := range want[:8] {
			file := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}})
			if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
				t.Errorf("%s does not describe %s: %v", version, name, file)
			}
		}
	}
}
