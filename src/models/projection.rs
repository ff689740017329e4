//! A projection as a graph of its own, and joined to an encoder's.
//!
//! In: a matrix; an encoder's graph. Out: ONNX with one matrix product; the encoder's graph with that product behind it, so that
//! one session does both.
//! Must not know: how the matrix was learnt, where files lie.

use onnx_rs::ast::{
    DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto, TensorShape, TensorShapeDimension, TensorTypeProto,
    TypeProto, TypeValue, ValueInfo,
};

/// The matrix, `[input, output]`.
const MATRIX: &str = "projection";
/// What is projected, in a graph of its own.
const INPUT: &str = "template";
/// What comes out.
const OUTPUT: &str = "projected";
/// What the encoder's own answer is called once a projection follows it.
const BEFORE: &str = "before_projection";

/// A graph that multiplies a batch of vectors of `input` numbers with a matrix of `output` rows (`rows`, row by row), as ONNX.
/// It has no bias, so that a vector's length does not change what it points to.
pub fn projection_graph((input, output): (usize, usize), rows: &[f32]) -> Vec<u8> {
    // A row of the product is the vector times the transposed matrix.
    let transposed = (0..input).flat_map(|column| (0..output).map(move |row| rows[row * input + column])).collect();
    let graph = Graph {
        name: MATRIX,
        node: vec![product(INPUT, OUTPUT)],
        initializer: vec![TensorProto::from_f32(MATRIX, vec![input as i64, output as i64], transposed)],
        input: vec![vectors(INPUT, input)],
        output: vec![vectors(OUTPUT, output)],
        ..Graph::default()
    };
    let opset_import = vec![OperatorSetId { domain: "", version: 13 }];
    onnx_rs::encode(&Model { ir_version: 8, opset_import, producer_name: "doorward", graph: Some(graph), ..Model::default() })
}

/// The matrix of a graph that [`projection_graph`] made, with its size.
pub(super) fn matrix(bytes: &[u8]) -> Result<((usize, usize), Vec<f32>), String> {
    let model = onnx_rs::parse(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_ref().ok_or("it holds no graph")?;
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == MATRIX).ok_or("it holds no matrix called projection")?;
    let values = tensor.as_f32().ok_or("its matrix is not of 32-bit floats")?.into_owned();
    match *tensor.dims() {
        [input, output] if input > 0 && output > 0 && input.checked_mul(output) == i64::try_from(values.len()).ok() => {
            Ok(((input as usize, output as usize), values))
        }
        _ => Err("its matrix has another shape than [input, output]".into()),
    }
}

/// Puts the product with `matrix` behind the encoder's output called `output`, under the same name.
pub(super) fn join<'a>(graph: &mut Graph<'a>, output: &'a str, ((input, rows), values): ((usize, usize), Vec<f32>)) -> Result<(), String> {
    let answered = graph.output.iter_mut().find(|value| value.name == output).ok_or_else(|| format!("it has no output {output:?}"))?;
    let width = answered.r#type.as_ref().and_then(|t| t.value.as_ref()).and_then(|value| match value {
        TypeValue::Tensor(tensor) => tensor.shape.as_ref()?.dim.last().map(|dim| dim.value.clone()),
        _ => None,
    });
    if width != Some(Dimension::Value(input as i64)) {
        return Err(format!("its output {output:?} has {width:?}, and the projection takes {input} numbers"));
    }
    *answered = vectors(output, rows);
    let outputs = graph.node.iter_mut().flat_map(|node| node.output.iter_mut());
    outputs.filter(|name| **name == output).for_each(|name| *name = BEFORE);
    graph.initializer.push(TensorProto::from_f32(MATRIX, vec![input as i64, rows as i64], values));
    graph.node.push(product(BEFORE, output));
    Ok(())
}

fn product<'a>(input: &'a str, output: &'a str) -> Node<'a> {
    Node { input: vec![input, MATRIX], output: vec![output], name: "project", op_type: OpType::MatMul, ..Node::default() }
}

fn vectors(name: &str, width: usize) -> ValueInfo<'_> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let shape = TensorShape { dim: vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(width as i64))] };
    let tensor = TensorTypeProto { elem_type: DataType::Float, shape: Some(shape) };
    ValueInfo { name, r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() }), ..ValueInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_comes_back_transposed_as_the_product_needs_it() {
        let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let graph = projection_graph((3, 2), &rows);
        assert_eq!(matrix(&graph), Ok(((3, 2), vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])));
        assert!(matrix(b"no graph").is_err() && matrix(&[]).is_err());
    }

    #[test]
    fn a_projection_stands_behind_the_encoder_under_its_name() {
        let mut encoder = Graph {
            node: vec![Node { input: vec!["data"], output: vec!["fc1"], op_type: OpType::Identity, ..Node::default() }],
            output: vec![vectors("fc1", 3)],
            ..Graph::default()
        };
        join(&mut encoder, "fc1", ((3, 2), vec![0.0; 6])).expect("it fits");
        assert_eq!((encoder.node[0].output[0], encoder.node[1].input[0], encoder.node[1].output[0]), (BEFORE, BEFORE, "fc1"));
        assert_eq!(encoder.output, [vectors("fc1", 2)]);
        let mut other = Graph { output: vec![vectors("fc1", 4)], ..Graph::default() };
        assert!(join(&mut other, "fc1", ((3, 2), vec![0.0; 6])).is_err_and(|reason| reason.contains("takes 3 numbers")));
        assert!(join(&mut other, "fc2", ((3, 2), vec![0.0; 6])).is_err());
    }
}
