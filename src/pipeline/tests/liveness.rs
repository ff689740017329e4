//! Each shot is scored in its own frame, and a shot that could not be scored is not compared.

use super::*;
use crate::infer::ModelFacts;

/// How much each person looks alive: the first is a picture.
const ALIVE: [f32; 4] = [0.0, 0.1, 0.9, 0.8];

/// What the made-up sessions run besides.
pub(super) fn models(faults: Faults) -> Vec<ModelFacts> {
    let said = String::new;
    let model = |_| ModelFacts { role: "antispoof".into(), name: said(), file: said(), sha256: said(), licence: said() };
    faults.live_percent.map(model).into_iter().collect()
}

impl MadeUp {
    /// By the person who is where the box says in the frame.
    pub(super) fn scores_of(&mut self, faces: &[FaceInFrame]) -> Result<Vec<f32>, InferError> {
        let percent = self.faults.live_percent.expect("nobody asks without the model");
        faces.iter().try_for_each(|face| self.fails(("live", face.frame.capture_time.as_micros()), percent))?;
        let blue = |FaceInFrame { frame, face }: &FaceInFrame| {
            let centre = face.centre();
            frame.plane(0)[(centre.y as usize * SIZE.width as usize + centre.x as usize) * 3 + 2]
        };
        Ok(faces.iter().map(|face| ALIVE[person_of(blue(face))]).collect())
    }
}

/// Persons 1, 2 and 3 walk past.
async fn walked_past(live_percent: Option<u64>) -> (Vec<Vec<LoggedEvent>>, PipelineCounts) {
    let house = House::open(Faults { live_percent, ..Faults::default() }, 1).await;
    let (camera, feeding) = walk_past(&house, "door", 3 * CYCLE_FRAMES);
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    let counts = house.pipeline.counts();
    (visits(&house.told(std::slice::from_ref(&camera)).await, &camera), counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_says_how_alive_its_own_visitor_looks() {
    let (visits, _) = walked_past(Some(0)).await;
    let decided: Vec<_> =
        visits.iter().map(|visit| &visit[1].event).map(|event| (event.kind, event.live_score, event.suspected_attack)).collect();
    let near = |score: Option<f32>, expected: f32| score.is_some_and(|score| (score - expected).abs() < 1e-6);
    assert_eq!(
        decided.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(),
        [EventKind::Identified, EventKind::Identified, EventKind::Unidentified]
    );
    for ((_, score, is_suspected), person) in decided.iter().zip(1..) {
        assert!(near(*score, ALIVE[person]) && *is_suspected == (person == 1), "{person}: {decided:?}");
    }
    let (visits, _) = walked_past(None).await;
    assert!(visits.iter().flatten().all(|logged| logged.event.live_score.is_none() && !logged.event.suspected_attack));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shot_that_could_not_be_scored_names_nobody() {
    let (visits, counts) = walked_past(Some(100)).await;
    assert_eq!((visits.len(), counts.encoded), (3, 0));
    let named: Vec<_> = visits.iter().flatten().filter(|logged| logged.event.subject.is_some()).collect();
    assert!(named.is_empty(), "{named:?}");
    // Where it fails now and then, whoever is known is named all the same, by the shots that were scored.
    let (visits, _) = walked_past(Some(30)).await;
    assert_eq!(kinds(&visits[1])[1], EventKind::Identified);
    assert!(visits.iter().filter(|visit| visit[1].event.subject.is_some()).all(|visit| visit[1].event.live_score.is_some()));
}
