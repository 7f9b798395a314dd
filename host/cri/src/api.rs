//! `runtime.v1`, generated from `proto/api.proto`: that file is `pkg/apis/runtime/v1/api.proto` of the Go module
//! `k8s.io/cri-api` v0.37.1, unchanged. The client is there for tests.

#![allow(warnings, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]

tonic::include_proto!("runtime.v1");
