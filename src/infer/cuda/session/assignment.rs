//! Which provider the runtime gave each node of a graph to.
//!
//! In: a session that kept a record of it. Out: an [`Assignment`], and what people are told of it.
//! Drops nothing.
//! Must not know: what is run, devices, engines.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr;

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::{AsPointer, ortsys};

use super::choice::GpuProvider;

/// Makes a session keep the record: without it [`Assignment::of`] is an error.
pub(super) fn recorded(builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    Ok(builder.with_config_entry("session.record_ep_graph_assignment_info", "1")?)
}

/// The operators of a graph, by the provider that runs them. A provider that is asked first may leave any node to the next one, and
/// the session opens all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assignment(BTreeMap<String, Vec<String>>);

impl Assignment {
    /// What the runtime did with the graph of `session`, by `OrtApi::Session_GetEpGraphAssignmentInfo`.
    pub(super) fn of(session: &Session) -> ort::Result<Self> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut parts, mut count) = (ptr::null(), 0);
        // SAFETY: the session is alive, and the runtime writes only the two places that it is given; so below.
        ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &raw mut parts, &raw mut count)?];
        for place in 0..count {
            // SAFETY: the runtime gave an array of so many parts, which lives as long as the session.
            let part = unsafe { *parts.add(place) };
            let mut provider: *const c_char = ptr::null();
            ortsys![unsafe EpAssignedSubgraph_GetEpName(part, &raw mut provider)?];
            let (mut nodes, mut count) = (ptr::null(), 0);
            ortsys![unsafe EpAssignedSubgraph_GetNodes(part, &raw mut nodes, &raw mut count)?];
            // SAFETY: a name of the runtime's ends with a zero and lives as long as the session.
            let operators = all.entry(unsafe { words(provider) }).or_default();
            for place in 0..count {
                let mut operator: *const c_char = ptr::null();
                // SAFETY: the array has so many nodes, as above.
                ortsys![unsafe EpAssignedNode_GetOperatorType(*nodes.add(place), &raw mut operator)?];
                // SAFETY: as for the provider's name.
                operators.push(unsafe { words(operator) });
            }
        }
        Ok(Self(all))
    }

    /// How many nodes the provider that the runtime calls `name` runs.
    pub(super) fn nodes_of(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, Vec::len)
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The operators of those nodes that `provider` left to others.
    pub(super) fn left_by(&self, provider: GpuProvider) -> Vec<&str> {
        let others = self.0.iter().filter(|(name, _)| name.as_str() != runtime_name(provider));
        others.flat_map(|(_, operators)| operators.iter().map(String::as_str)).collect()
    }

    /// Why this is none that was asked for: `provider`, which was to run the graph, runs nothing of it.
    pub(super) fn refusal(&self, provider: GpuProvider) -> Option<String> {
        let is_unused = self.nodes_of(runtime_name(provider)) == 0;
        is_unused.then(|| format!("it takes none of the graph's {} nodes, and what runs them instead is {self}", self.nodes()))
    }

    /// What runs the graph, where `provider` was to: its name, and what it left to others.
    pub(super) fn words(&self, provider: GpuProvider) -> String {
        let left = self.left_by(provider).len();
        if left == 0 {
            return provider.name().to_owned();
        }
        format!("{} but for {left} of {} nodes ({self})", provider.name(), self.nodes())
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(|(name, nodes)| format!("{name} {}", nodes.len()));
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

/// What the runtime calls a provider.
fn runtime_name(provider: GpuProvider) -> &'static str {
    match provider {
        GpuProvider::TensorRt => "TensorrtExecutionProvider",
        GpuProvider::Cuda => "CUDAExecutionProvider",
    }
}

/// # Safety
/// `text` is null or ends with a zero.
unsafe fn words(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(parts: &[(&str, &[&str])]) -> Assignment {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Assignment(parts.iter().map(|(name, operators)| ((*name).to_owned(), own(operators))).collect())
    }

    #[test]
    fn a_provider_that_runs_nothing_of_a_graph_is_refused() {
        let left = assignment(&[("CUDAExecutionProvider", &["Conv", "Relu"])]);
        let refusal = left.refusal(GpuProvider::TensorRt).expect("TensorRT took nothing");
        assert!(refusal.contains("none of the graph's 2 nodes") && refusal.contains("CUDAExecutionProvider 2"), "{refusal}");
        assert_eq!(left.refusal(GpuProvider::Cuda), None);
        assert!(Assignment::default().refusal(GpuProvider::Cuda).is_some(), "a graph without a node is run by nobody");
    }

    #[test]
    fn what_a_provider_left_to_others_is_told_by_the_numbers() {
        let whole = assignment(&[("TensorrtExecutionProvider", &["Conv", "Relu"])]);
        assert_eq!((whole.words(GpuProvider::TensorRt).as_str(), whole.left_by(GpuProvider::TensorRt).len()), ("TensorRT", 0));
        let part = assignment(&[("CUDAExecutionProvider", &["Resize"]), ("TensorrtExecutionProvider", &["Conv", "Relu"])]);
        assert_eq!((part.refusal(GpuProvider::TensorRt), part.left_by(GpuProvider::TensorRt)), (None, vec!["Resize"]));
        let words = part.words(GpuProvider::TensorRt);
        assert_eq!(words, "TensorRT but for 1 of 3 nodes (CUDAExecutionProvider 1, TensorrtExecutionProvider 2)");
    }
}
