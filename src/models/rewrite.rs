//! Rewrites a published graph once, so that every session afterwards runs faster and at any size.
//!
//! In: the bytes of a published ONNX file. Out: a graph with the same answers, sealed with the
//! hash of what it was made from. Dropped: shape annotations that no longer hold.
//! Must not know: where files lie (but for the name beside the original), ONNX Runtime.
//!
//! What is rewritten, and why (ms of CPU for one face through SFace, AVX2, least of 80):
//! * Weights are taken out of the graph's inputs. As inputs they could be replaced at each run, so
//!   the runtime may not fold normalisation into convolution: 31 ms before, 18.5 ms after.
//! * Batch becomes a parameter of both graphs, height and width of the detector's. A session pins
//!   them when it is opened (`infer`), which costs nothing against a graph of fixed shape.
//! * `PRelu` stays. As Relu/Mul/Add it costs 18.9 instead of 15.9 ms in the OpenVINO provider,
//!   which runs the encoder, and 21.5 instead of 18.5 in the CPU provider.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use onnx_rs::ast::{Dimension, Graph, OpType, TensorProto, TypeValue, ValueInfo};

use super::file::sha256_hex;
use super::{Role, projection};

/// Grows whenever the rewriter writes something else for the same graph.
pub const REWRITER_VERSION: u32 = 1;

/// The key of the last metadata entry of a sealed graph.
const SEAL_KEY: &[u8] = b"doorward.seal";
/// Hex digits of two SHA-256: of the published file, and of all bytes before the seal.
const SEAL_VALUE_BYTES: usize = 128;

/// Where the rewritten form of `original` lies; `mark` tells several of one file apart.
pub(super) fn path_beside(original: &Path, mark: &str) -> PathBuf {
    let mark = if mark.is_empty() { String::new() } else { format!("{mark}.") };
    original.with_extension(format!("{mark}doorward-{REWRITER_VERSION}.onnx"))
}

/// Rewrites the graph in `bytes`; the error says what is in the way.
pub(super) fn rewrite(bytes: &[u8], role: Role) -> Result<Vec<u8>, String> {
    let mut model = onnx_rs::parse(bytes).map_err(|error| error.to_string())?;
    free(model.graph.as_mut().ok_or("it holds no graph")?, role)?;
    Ok(onnx_rs::encode(&model))
}

/// The same of an encoder, with a projection behind its output.
pub(super) fn projected(bytes: &[u8], output: &str, matrix: ((usize, usize), Vec<f32>)) -> Result<Vec<u8>, String> {
    let mut model = onnx_rs::parse(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_mut().ok_or("it holds no graph")?;
    free(graph, Role::Encoder)?;
    projection::join(graph, output, matrix)?;
    Ok(onnx_rs::encode(&model))
}

/// Takes weights out of the inputs, and gives names to the dimensions that vary.
fn free(graph: &mut Graph<'_>, role: Role) -> Result<(), String> {
    let weights: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    graph.input.retain(|input| !weights.contains(input.name));
    graph.value_info.clear();
    let [input] = graph.input.as_mut_slice() else {
        return Err(format!("it has {} inputs besides its weights; one is supported", graph.input.len()));
    };
    let free_input: &[(usize, &'static str)] = match role {
        Role::Detector => &[(0, "batch"), (2, "height"), (3, "width")],
        Role::Encoder | Role::Antispoof | Role::Runtime => &[(0, "batch")],
    };
    free_dimensions(input, free_input)?;
    for output in &mut graph.output {
        // The rows of a detector's output are its cells: as many as height and width make.
        let rows = output.name;
        let free: &[(usize, &str)] = if role == Role::Detector { &[(0, "batch"), (1, rows)] } else { &[(0, "batch")] };
        free_dimensions(output, free)?;
    }
    free_reshapes(graph);
    Ok(())
}

/// Gives dimensions a name instead of a number.
fn free_dimensions<'a>(value: &mut ValueInfo<'a>, free: &[(usize, &'a str)]) -> Result<(), String> {
    let name = value.name;
    let Some(TypeValue::Tensor(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut()) else {
        return Err(format!("{name:?} is no tensor"));
    };
    let dimensions = &mut tensor.shape.as_mut().ok_or_else(|| format!("{name:?} has no shape"))?.dim;
    for &(index, parameter) in free {
        let dimension = dimensions.get_mut(index).ok_or_else(|| format!("{name:?} has no dimension {index}"))?;
        dimension.value = Dimension::Param(parameter);
    }
    Ok(())
}

/// A graph exported for one picture reshapes to `[1, …]`. A leading 0 copies the batch dimension
/// instead, so that more pictures stay apart.
fn free_reshapes(graph: &mut Graph<'_>) {
    let is_reshape = |op: &OpType<'_>| *op == OpType::Reshape;
    let shapes: HashSet<&str> =
        graph.node.iter().filter(|node| is_reshape(&node.op_type)).filter_map(|node| node.input.get(1).copied()).collect();
    for tensor in graph.initializer.iter_mut().filter(|tensor| shapes.contains(tensor.name())) {
        let Some(mut shape) = tensor.as_i64().map(std::borrow::Cow::into_owned) else { continue };
        if shape.first() == Some(&1) {
            shape[0] = 0;
            *tensor = TensorProto::from_i64(tensor.name(), tensor.dims().to_vec(), shape);
        }
    }
}

/// Appends a metadata entry that binds the graph to the published file and to its own bytes.
/// (Protocol buffers may be concatenated: the entry is one more of a repeated field.)
pub(super) fn seal(mut graph: Vec<u8>, source_sha256: &str) -> Vec<u8> {
    let content = sha256_hex(&graph);
    graph.extend(seal_entry(source_sha256, &content));
    graph
}

/// Whether the file at `path` is the whole of what [`seal`] made from the published file.
pub(super) fn is_current(path: &Path, source_sha256: &str) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    let length = seal_entry("", "").len() + SEAL_VALUE_BYTES;
    let Some(at) = bytes.len().checked_sub(length) else { return false };
    let (graph, sealed) = bytes.split_at(at);
    sealed == seal_entry(source_sha256, &sha256_hex(graph))
}

/// `ModelProto.metadata_props` (field 14) with `key` (field 1) and `value` (field 2).
fn seal_entry(source_sha256: &str, content_sha256: &str) -> Vec<u8> {
    let value = [source_sha256.as_bytes(), content_sha256.as_bytes()].concat();
    let mut pair = vec![0x0a, SEAL_KEY.len() as u8];
    pair.extend(SEAL_KEY);
    // Both lengths take two bytes as varints, whatever the value: the entry's size never changes.
    pair.extend([0x12, 0x80 | (value.len() & 0x7f) as u8, (value.len() >> 7) as u8]);
    pair.extend(value);
    let mut entry = vec![0x72, 0x80 | (pair.len() & 0x7f) as u8, (pair.len() >> 7) as u8];
    entry.extend(pair);
    entry
}
