//! Templates of other encoders are kept beside a sample's first, and erased with it from the files.
//!
//! In: a store that is thrown away. Out: verdicts. Must not know: encoders.

use super::{commit, no_answer, put_sample, sample, store, subject, template, templates};
use crate::face::{Template, TemplateSpace};
use crate::mutation::Mutation;
use crate::store::{Call, Store, people};
use crate::subject::Subject;

fn elsewhere(random: &mut fastrand::Rng) -> Template {
    let values: Vec<f32> = (0..96).map(|_| random.f32() - 0.5).collect();
    Template::normalised(TemplateSpace::new("newer"), &values).expect("it has a direction")
}

/// Whether eight bytes in a row of `value` lie in some file of the directory.
fn leaves_traces(directory: &std::path::Path, value: &[u8]) -> bool {
    directory.read_dir().expect("listed").any(|file| {
        let bytes = std::fs::read(file.expect("an entry").path()).expect("read");
        value.as_chunks::<8>().0.iter().any(|piece| bytes.windows(8).any(|window| window == piece))
    })
}

async fn lacking(store: &Store) -> Vec<Option<String>> {
    let lacking = store.samples_lacking(&TemplateSpace::new("newer"), 0, 100).await.expect("read");
    lacking.into_iter().map(|sample| sample.subject.map(|id| id.to_string())).collect()
}

#[tokio::test]
async fn the_template_of_the_space_in_force_is_read_wherever_it_came_from() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(61);
    let (anna, bert) = (subject("anna"), subject("bert"));
    let (first, second) = (sample(&anna, 1), sample(&bert, 2));
    let (old, later, new) = (template(&mut random), elsewhere(&mut random), elsewhere(&mut random));
    let put = |who: &Subject| Mutation::PutSubject(who.clone());
    commit(&store, vec![put(&anna), put(&bert), put_sample(&first, &old, b"a"), put_sample(&second, &new, b"b")]).await;
    assert_eq!(lacking(&store).await, [Some("anna".to_owned())]);
    let number = store.samples_lacking(later.space(), 0, 1).await.expect("read")[0].number;
    assert_eq!(store.photo(number).await, Ok(Some(b"a".to_vec())));
    store.keep_later_templates(vec![(number, later.clone()), (number, later.clone()), (999, later.clone())]).await.expect("kept");
    assert_eq!((lacking(&store).await.len(), store.count_lacking(later.space()).await), (0, Ok((0, 2))));
    assert_eq!(store.samples(anna.uid).await, Ok(vec![(first.clone(), old.clone())]), "nothing is in force yet");
    for store in [store.clone(), store] {
        store.put_in_force(later.space());
        assert_eq!(store.samples(anna.uid).await, Ok(vec![(first.clone(), later.clone())]));
        assert_eq!(templates(&store).await.into_iter().map(|t| t.template).collect::<Vec<_>>(), [later.clone(), new.clone()]);
        assert_eq!((store.foreign_templates(later.space()).await, store.subjects_lacking(later.space()).await), (Ok(0), Ok(0)));
        assert_eq!((store.foreign_templates(old.space()).await, store.subjects_lacking(old.space()).await), (Ok(1), Ok(1)));
    }
    let store = Store::open(directory.path()).expect("it opens");
    store.put_in_force(old.space());
    assert_eq!(store.samples(anna.uid).await, Ok(vec![(first, old)]));
    assert_eq!(store.samples(bert.uid).await, Ok(vec![(second, new)]), "there is no other");
}

#[tokio::test]
async fn an_erased_persons_later_templates_are_gone_from_every_file() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(62);
    let (anna, bert, cleo) = (subject("anna"), subject("bert"), subject("cleo"));
    let mut mutations: Vec<Mutation> = [&anna, &bert, &cleo].map(|who| Mutation::PutSubject(who.clone())).into();
    let samples = [sample(&anna, 1), sample(&bert, 2), sample(&bert, 3), sample(&cleo, 4)];
    mutations.extend(samples.iter().map(|sample| put_sample(sample, &template(&mut random), b"photo")));
    commit(&store, mutations).await;
    let numbers = store.samples_lacking(&TemplateSpace::new("newer"), 0, 9).await.expect("read");
    let later: Vec<Template> = numbers.iter().map(|_| elsewhere(&mut random)).collect();
    let bytes: Vec<Vec<u8>> = later.iter().map(|template| people::float_bytes(template.values())).collect();
    store.keep_later_templates(numbers.iter().map(|sample| sample.number).zip(later).collect()).await.expect("kept");
    // Cleo was taken out before, and is kept for a rollback.
    commit(&store, vec![Mutation::RetireSubject(cleo.uid)]).await;
    assert!(bytes.iter().all(|bytes| leaves_traces(directory.path(), bytes)));
    let erase = |mutation| store.mutate(vec![mutation], Call::default(), no_answer());
    assert_eq!(erase(Mutation::EraseSubject(anna.uid)).await.expect("erased").templates_erased, 2);
    assert_eq!(erase(Mutation::EraseSample { subject: bert.uid, sample: samples[1].id }).await.expect("erased").templates_erased, 2);
    assert_eq!(erase(Mutation::EraseSubject(cleo.uid)).await.expect("erased").templates_erased, 2);
    let left: Vec<bool> = bytes.iter().map(|bytes| leaves_traces(directory.path(), bytes)).collect();
    assert_eq!(left, [false, false, true, false]);
    assert_eq!(lacking(&store).await.len(), 0, "who was erased lacks nothing");
    let template = elsewhere(&mut random);
    store.keep_later_templates(vec![(numbers[0].number, template.clone())]).await.expect("passed over");
    assert!(!leaves_traces(directory.path(), &people::float_bytes(template.values())), "a template that comes too late is not kept");
    let late = store.mutate(vec![Mutation::PutTemplate { sample: samples[0].clone(), template }], Call::default(), no_answer());
    assert!(late.await.is_err());
}
