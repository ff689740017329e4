//! Reads a detector's outputs, and keeps one detection a face. Pure.
//!
//! In: the output tensors of one picture. Out: detections in pixels of the canvas, best first.
//! Drops: cells below the score, answers that are no number, and all but the best
//! [`CANDIDATES_MAX`] cells.
//! Must not know: frames, sessions.

use crate::face::{Detection, Landmarks, Point, Rect};

/// The strides of the three heads, in pixels of the canvas.
pub(super) const STRIDES: [u32; 3] = [8, 16, 32];
/// Two boxes that overlap more than this are one face.
pub(super) const IOU_MAX: f32 = 0.3;
/// The most cells that are compared with each other: a hostile picture must not cost seconds.
const CANDIDATES_MAX: usize = 1_024;

/// One of the heads of `YuNet`: one row a cell, cells row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    /// Class score, one a cell.
    pub(super) class: &'a [f32],
    /// Objectness, one a cell.
    pub(super) object: &'a [f32],
    /// Offset of the centre and logarithm of the size, four a cell, in strides.
    pub(super) boxes: &'a [f32],
    /// Offsets of the landmarks, ten a cell, in strides.
    pub(super) landmarks: &'a [f32],
}

/// The faces that `YuNet` saw on a canvas of `width` pixels.
pub(super) fn yunet(heads: &[Head<'_>; 3], width: u32, score_min: f32) -> Vec<Detection> {
    let mut candidates = Vec::new();
    for (head, stride) in heads.iter().zip(STRIDES) {
        let columns = (width / stride) as usize;
        let scores = head.class.iter().zip(head.object);
        for (cell, (class, object)) in scores.enumerate() {
            // The square root of the product of two numbers in 0..1, compared before it is drawn.
            let product = class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0);
            if product > score_min * score_min {
                candidates.extend(cell_of(head, cell, (columns, stride as f32), product.sqrt()));
            }
        }
    }
    best_first(&mut candidates);
    candidates.truncate(CANDIDATES_MAX);
    suppress(&candidates, IOU_MAX)
}

/// What one cell says, or nothing where that is no number.
fn cell_of(head: &Head<'_>, cell: usize, (columns, stride): (usize, f32), score: f32) -> Option<Detection> {
    let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
    let place = |dx: f32, dy: f32| Point { x: (column + dx) * stride, y: (row + dy) * stride };
    let offsets: &[f32; 4] = head.boxes.get(cell * 4..)?.first_chunk()?;
    let points: &[f32; 10] = head.landmarks.get(cell * 10..)?.first_chunk()?;
    let centre = place(offsets[0], offsets[1]);
    let (width, height) = (offsets[2].exp() * stride, offsets[3].exp() * stride);
    let box_in_frame = Rect { x: centre.x - width / 2.0, y: centre.y - height / 2.0, width, height };
    let landmarks = Landmarks([0, 1, 2, 3, 4].map(|i| place(points[2 * i], points[2 * i + 1])));
    let numbers = [box_in_frame.x, box_in_frame.y, width, height];
    let is_finite = numbers.iter().all(|n| n.is_finite()) && landmarks.0.iter().all(|p| p.x.is_finite() && p.y.is_finite());
    is_finite.then_some(Detection { box_in_frame, score, landmarks })
}

/// Sorts by score, ties as they came.
fn best_first(detections: &mut [Detection]) {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// Greedy non-maximum suppression: takes detections, best first, and drops those that overlap a
/// better one by more than `iou_max`. `detections` are best first.
pub(super) fn suppress(detections: &[Detection], iou_max: f32) -> Vec<Detection> {
    let mut kept: Vec<Detection> = Vec::new();
    for detection in detections {
        if kept.iter().all(|better| better.box_in_frame.iou(&detection.box_in_frame) <= iou_max) {
            kept.push(*detection);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detection(x: f32, y: f32, side: f32, score: f32) -> Detection {
        Detection { box_in_frame: Rect { x, y, width: side, height: side }, score, ..Detection::default() }
    }

    /// Heads of a 64×32 canvas in which nothing is seen, as vectors: class, object, boxes, points.
    fn blank() -> [[Vec<f32>; 4]; 3] {
        STRIDES.map(|s| (64 / s * (32 / s)) as usize).map(|n| [vec![0.0; n], vec![0.0; n], vec![0.0; 4 * n], vec![0.0; 10 * n]])
    }

    fn read(raw: &[[Vec<f32>; 4]; 3]) -> Vec<Detection> {
        let heads = raw.each_ref().map(|[class, object, boxes, landmarks]| Head { class, object, boxes, landmarks });
        yunet(&heads, 64, 0.7)
    }

    #[test]
    fn a_cell_says_where_a_face_is() {
        let mut raw = blank();
        let cell = 4 + 3; // Column 3, row 1 of the head with stride 16.
        (raw[1][0][cell], raw[1][1][cell]) = (0.81, 1.0);
        raw[1][2][cell * 4..][..4].copy_from_slice(&[0.5, 0.25, 2.0_f32.ln(), 1.5_f32.ln()]);
        raw[1][3][cell * 10..][..2].copy_from_slice(&[-0.5, 1.0]);
        let [face] = read(&raw)[..] else { panic!("one face") };
        assert!((face.score - 0.9).abs() < 1e-6);
        let expected = Rect { x: 3.5 * 16.0 - 16.0, y: 1.25 * 16.0 - 12.0, width: 32.0, height: 24.0 };
        assert!((face.box_in_frame.x - expected.x).abs() < 1e-4 && (face.box_in_frame.y - expected.y).abs() < 1e-4);
        assert!((face.box_in_frame.width - 32.0).abs() < 1e-4 && (face.box_in_frame.height - 24.0).abs() < 1e-4);
        assert_eq!(face.landmarks.0[0], Point { x: 40.0, y: 32.0 });
    }

    #[test]
    fn answers_that_are_no_number_are_no_face() {
        let mut raw = blank();
        (raw[2][0][0], raw[2][1][0]) = (1.0, 1.0);
        raw[2][2][2] = 1_000.0; // The size overflows.
        (raw[2][0][1], raw[2][1][1]) = (f32::NAN, 1.0);
        assert_eq!(read(&raw), []);
    }

    #[test]
    fn a_picture_full_of_faces_is_bounded() {
        let many: Vec<f32> = vec![1.0; 32_000];
        let none = [0.0; 320_000];
        let head = Head { class: &many, object: &many, boxes: &none, landmarks: &none };
        assert!(yunet(&[head; 3], 8_000, 0.7).len() <= CANDIDATES_MAX);
    }

    proptest! {
        #[test]
        fn suppression_is_idempotent_keeps_the_best_and_its_order(
            boxes in prop::collection::vec((0.0_f32..100.0, 0.0_f32..100.0, 1.0_f32..60.0, 0.0_f32..1.0), 0..60),
        ) {
            let mut all: Vec<_> = boxes.into_iter().map(|(x, y, side, score)| detection(x, y, side, score)).collect();
            best_first(&mut all);
            let once = suppress(&all, IOU_MAX);
            prop_assert_eq!(&suppress(&once, IOU_MAX), &once);
            prop_assert_eq!(once.first(), all.first());
            prop_assert!(once.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for dropped in all.iter().filter(|d| !once.contains(d)) {
                prop_assert!(once.iter().any(|kept| kept.score >= dropped.score && kept.box_in_frame.iou(&dropped.box_in_frame) > IOU_MAX));
            }
        }
    }
}
