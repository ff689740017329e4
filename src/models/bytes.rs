//! A detector's graph that reads bytes.
//!
//! In: a rewritten graph of f32, the units of its input. Out: the same graph behind a cast and what brings bytes to those units.
//! Must not know: where files lie, sessions.
//!
//! Why: three planes of 640×384 take 2.9 MB as f32, more than a core's own cache holds, and are written by one step and read
//! by the next. As bytes they take 0.7 MB. The runtime casts as it reorders its input for the first convolution anyway.

use onnx_rs::ast::{Attribute, AttributeType, DataType, Node, OpType, TensorProto, TypeValue};

use super::InputEntry;

/// What the graph's own input is called once a cast precedes it.
const CAST: &str = "bytes_cast";
/// The same less the mean, where there is one.
const CENTRED: &str = "bytes_centred";
/// The same times the scale.
const SCALED: &str = "bytes_scaled";
const MEAN: &str = "bytes_mean";
const SCALE: &str = "bytes_scale";
/// `TensorProto.DataType.FLOAT`, as a cast names its aim.
const FLOAT: i64 = 1;

/// The graph in `bytes`, of one input `[batch, 3, height, width]` of f32, with the same input of bytes instead. `input` says
/// what is done to a byte before the graph sees it.
///
/// # Errors
/// When the bytes hold no graph, or one without that input.
pub(crate) fn reading_bytes(bytes: &[u8], input: &InputEntry) -> Result<Vec<u8>, String> {
    let mut model = onnx_rs::parse(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_mut().ok_or("it holds no graph")?;
    let own = graph.input.iter_mut().find(|value| value.name == input.name);
    let Some(TypeValue::Tensor(tensor)) = own.and_then(|value| value.r#type.as_mut()?.value.as_mut()) else {
        return Err(format!("it has no input {:?}", input.name));
    };
    tensor.elem_type = DataType::Uint8;

    let mut steps = vec![cast(&input.name)];
    if input.mean != [0.0; 3] {
        steps.push(step(OpType::Sub, [CAST, MEAN], CENTRED));
        graph.initializer.push(TensorProto::from_f32(MEAN, vec![1, 3, 1, 1], input.mean.to_vec()));
    }
    if input.scale != 1.0 {
        let before = if steps.len() == 1 { CAST } else { CENTRED };
        steps.push(step(OpType::Mul, [before, SCALE], SCALED));
        graph.initializer.push(TensorProto::from_f32(SCALE, vec![1], vec![input.scale]));
    }
    let last = steps.last().map_or(CAST, |step| step.output[0]);
    let readers = graph.node.iter_mut().flat_map(|node| node.input.iter_mut());
    readers.filter(|name| **name == input.name).for_each(|name| *name = last);
    graph.node.splice(0..0, steps);
    Ok(onnx_rs::encode(&model))
}

fn cast(input: &str) -> Node<'_> {
    let to = Attribute { name: "to", r#type: AttributeType::Int, i: FLOAT, ..Attribute::default() };
    Node { input: vec![input], output: vec![CAST], name: CAST, op_type: OpType::Cast, attribute: vec![to], ..Node::default() }
}

fn step<'a>(op_type: OpType<'a>, input: [&'a str; 2], output: &'a str) -> Node<'a> {
    Node { input: input.to_vec(), output: vec![output], name: output, op_type, ..Node::default() }
}
