"""Talks to a doorward daemon as a third party would: grpcio, reflection, no generated code.

In: a running daemon (--address HOST:PORT, or the environment variable DOORWARD_ADDRESS), or the
binary to start one with (--doorward BINARY --models DIRECTORY) on a free port and an empty data
directory. Out: one line a step, and status 1 with the reason as soon as one fails. It creates and
removes subjects and cameras whose ids begin with "python-".
The lines that README shows are one of the steps.
Must not know: anything of doorward but what the server itself describes, and README shows.
"""

import argparse
import contextlib
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE_S = 120.0
SERVICES = {f"doorward.v1.{name}Service" for name in ("Gallery", "Recognition", "Event", "Camera", "System")}
PASSWORD = "hunter2-never-shown"
TREE = Path(__file__).resolve().parents[2]


class Client:
    """Calls any method of any service that the server describes."""

    def __init__(self, address, patience_s=PATIENCE_S):
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(timeout=patience_s)
        self.described = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.described)

    def message(self, name):
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, method, **fields):
        """Calls "package.Service/Method"; a streaming one answers with its stream."""
        service, _, name = method.partition("/")
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        kind = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        return kind(f"/{method}", request.SerializeToString, response.FromString)(request(**fields), timeout=PATIENCE_S)

    def doorward(self, method, **fields):
        return self.call(f"doorward.v1.{method}", **fields)

    def refused(self, code, reason, method, **fields):
        """Calls what must be refused with `code`, and with `reason` in its google.rpc.ErrorInfo."""
        try:
            answer = self.doorward(method, **fields)
            answer = next(iter(answer)) if isinstance(answer, grpc.Call) else answer
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            status = self.message("google.rpc.Status").FromString(details)
            info = self.message("google.rpc.ErrorInfo")()
            explained = any(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR))
            expect(explained, f"{method}: the error has no ErrorInfo: {error}")
            expect((error.code(), info.domain, info.reason) == (code, "doorward.v1", reason), f"{method}: {error.code()} {info.reason}")
            expect(PASSWORD not in str(error), f"{method}: the error repeats a password")
            return info
        raise Failed(f"{method} should be refused with {reason}, and answered {answer}")


class Failed(Exception):
    """The daemon did something else than it should."""


def expect(true, otherwise):
    if not true:
        raise Failed(otherwise)


def png(width, height, grey):
    """A plain grey picture."""
    rows = (b"\0" + bytes([grey]) * width) * height
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def the_server_describes_itself(client):
    services = set(client.described.get_services())
    expect(SERVICES <= services, f"reflection lists {sorted(services)}")
    for service in sorted(SERVICES | {"grpc.health.v1.Health"}):
        expect(client.pool.FindServiceByName(service).methods, f"{service} has no methods")


def health_is_per_service(client):
    for service in sorted(SERVICES | {""}):
        answer = client.call("grpc.health.v1.Health/Check", service=service)
        serving = answer.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_name["SERVING"].number
        expect(answer.status == serving, f"health of {service!r} is {answer.status}")


def the_status_says_what_runs(client):
    status = client.doorward("SystemService/GetStatus")
    expect(status.version and status.inference.device and status.event_epoch, f"GetStatus answers {status}")
    expect({model.role for model in status.models} == {"detector", "encoder"}, f"models: {status.models}")


def errors_have_reasons(client):
    code = grpc.StatusCode
    info = client.refused(code.NOT_FOUND, "SUBJECT_NOT_FOUND", "GalleryService/GetSubject", id="python-nobody")
    expect(info.metadata["subject_id"] == "python-nobody", f"metadata: {info.metadata}")
    client.refused(code.INVALID_ARGUMENT, "BAD_IMAGE", "RecognitionService/DetectFaces", image=b"no picture")
    subject = {"subject": {"id": "python-grey"}, "samples": [{"image": png(200, 200, 128)}]}
    client.refused(code.INVALID_ARGUMENT, "NO_FACE", "GalleryService/CreateSubject", **subject)
    client.refused(code.INVALID_ARGUMENT, "BAD_CURSOR", "EventService/Subscribe", cursor="x")
    client.refused(code.INVALID_ARGUMENT, "BAD_PAGE_TOKEN", "CameraService/ListCameras", page_token="x")
    camera = {"id": "python-bad", "url": f"rtsp://admin:{PASSWORD}@127.0.0.1/"}
    client.refused(code.INVALID_ARGUMENT, "CREDENTIAL_IN_URL", "CameraService/CreateCamera", camera=camera)


def a_person_is_enrolled_identified_and_erased(client, photos):
    enrolled, probe, stranger = (photos / name for name in ("obama.jpg", "obama2.jpg", "biden.jpg"))
    if not all(photo.exists() for photo in (enrolled, probe, stranger)):
        print(f"LEFT OUT: enrolment: {enrolled.name}, {probe.name}, {stranger.name} are not all in {photos}")
        return
    identify = lambda photo: client.doorward("RecognitionService/Identify", image=photo.read_bytes()).identifications
    subject = {"id": "python-obama", "display_name": "Barack Obama"}
    request = {"subject": subject, "samples": [{"image": enrolled.read_bytes()}], "request_id": str(uuid.uuid4())}
    created = client.doorward("GalleryService/CreateSubject", **request)
    try:
        expect(client.doorward("GalleryService/CreateSubject", **request) == created, "a repeat is not answered as the first call")
        expect(identify(probe)[0].subject.subject_id == "python-obama", "another photo of the enrolled person is not identified")
        expect(not identify(stranger)[0].HasField("subject"), "a stranger is identified")
        listed = client.doorward("GalleryService/ListSubjects").subjects
        expect("Barack Obama" in [s.display_name for s in listed], "the subject is not listed")
    finally:
        receipt = client.doorward("GalleryService/DeleteSubject", id="python-obama")
    expect(receipt.uid == created.subject.uid and receipt.templates_erased == 1, f"the receipt is {receipt}")
    expect(not identify(probe)[0].HasField("subject"), "the erased person is identified")


def a_camera_is_watched_and_its_events_arrive(client):
    client.refused(grpc.StatusCode.NOT_FOUND, "CAMERA_NOT_FOUND", "EventService/Subscribe", camera_ids=["python-dark"])
    stream = client.doorward("EventService/Subscribe", camera_ids=["python-dark"], allow_missing=True)
    responses = queue.SimpleQueue()

    def read():
        with contextlib.suppress(grpc.RpcError):
            for response in stream:
                responses.put(response)

    threading.Thread(target=read, daemon=True).start()
    first = responses.get(timeout=PATIENCE_S)
    expect(not first.events and first.position.cursor and first.server_time.seconds, f"the first response is {first}")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]  # Nobody listens there once the block is left.
    camera = {"id": "python-dark", "url": f"rtsp://127.0.0.1:{port}/none"}
    created = client.doorward("CameraService/CreateCamera", camera=camera, credential={"username": "admin", "password": PASSWORD})
    try:
        shown = str(created) + str(client.doorward("CameraService/GetCamera", id="python-dark"))
        expect(created.camera.has_credential and PASSWORD not in shown, "a credential is shown, or lost")
        deadline = time.monotonic() + PATIENCE_S
        offline = None
        while offline is None and time.monotonic() < deadline:
            for event in responses.get(timeout=PATIENCE_S).events:
                expect(event.camera_id == "python-dark", f"an event passed the filter: {event}")
                kinds = event.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name
                offline = event if event.type == kinds["EVENT_TYPE_CAMERA_OFFLINE"].number else offline
        expect(offline is not None, "CAMERA_OFFLINE did not arrive")
        expect(offline.epoch == first.position.epoch and offline.sequence > first.position.sequence, f"its place is wrong: {offline}")
        expect(PASSWORD not in str(offline), "an event shows a password")
        states = next(iter(client.doorward("CameraService/WatchCameras", camera_ids=["python-dark"])))
        expect([status.camera_id for status in states.statuses] == ["python-dark"], f"WatchCameras answers {states}")
    finally:
        client.doorward("CameraService/DeleteCamera", id="python-dark")
        stream.cancel()


def the_readme_subscriber_prints_what_happens(client, address):
    """Runs the lines that README shows, as they stand there, against this daemon."""
    shown = re.search(r"^```python\n(.*?)^```$", TREE.joinpath("README.md").read_text(), re.MULTILINE | re.DOTALL)
    expect(shown and "127.0.0.1:50051" in shown.group(1), "README shows no subscriber at the default address")
    script = shown.group(1).replace("127.0.0.1:50051", address)
    # A pipe would be buffered until the script ends, which it never does.
    with subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True) as subscriber:
        lines = queue.SimpleQueue()
        threading.Thread(target=lambda: [lines.put(line) for line in subscriber.stdout], daemon=True).start()
        told, patience_s, deadline = None, 1.0, time.monotonic() + PATIENCE_S
        try:
            # It subscribes from now on, and does not say when: a camera comes and goes until it has told of it.
            while told is None:
                expect(subscriber.poll() is None, f"README's subscriber ended with status {subscriber.returncode}")
                expect(time.monotonic() < deadline, "README's subscriber does not tell of a camera that came")
                client.doorward("CameraService/CreateCamera", camera={"id": "python-readme", "url": f"rtsp://127.0.0.1:{free_port()}/none"})
                until = time.monotonic() + patience_s
                with contextlib.suppress(queue.Empty):
                    while told is None:
                        line = lines.get(timeout=max(0.0, until - time.monotonic()))
                        # Other cameras of the daemon may be told of, too.
                        told = line if line.startswith("python-readme ") else None
                client.doorward("CameraService/DeleteCamera", id="python-readme")
                patience_s *= 2
            expect("EVENT_TYPE_CAMERA_OFFLINE" in told, f"README's subscriber printed {told}")
        finally:
            subscriber.kill()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@contextlib.contextmanager
def running_daemon(doorward, models):
    """A daemon on a free port with an empty data directory; it must end in order."""
    with tempfile.TemporaryDirectory() as work:
        address = f"127.0.0.1:{free_port()}"
        data, log = Path(work, "data"), Path(work, "log")
        data.mkdir(mode=0o700)
        settings = {"data_dir": data, "models_dir": Path(models).resolve(), "server.listen": address}
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DOORWARD_")}
        with log.open("wb") as output:
            daemon = subprocess.Popen([doorward, "serve", *arguments], stdout=output, stderr=output, env=environment)
        try:
            wait_until_serving(address, daemon)
            yield address
            daemon.send_signal(signal.SIGTERM)
            expect(daemon.wait(timeout=15) == 0, f"the daemon ended with status {daemon.returncode}")
        except BaseException:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()


def wait_until_serving(address, daemon):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        expect(daemon.poll() is None, f"the daemon ended with status {daemon.returncode} before it served")
        expect(time.monotonic() < deadline, f"the daemon does not serve {address} after {PATIENCE_S:.0f} s")
        try:
            health_is_per_service(Client(address, patience_s=2.0))
            return
        except (grpc.RpcError, grpc.FutureTimeoutError, Failed, KeyError):
            time.sleep(0.2)


def run(address, photos):
    client = Client(address)
    steps = [
        (the_server_describes_itself, ()),
        (health_is_per_service, ()),
        (the_status_says_what_runs, ()),
        (errors_have_reasons, ()),
        (a_person_is_enrolled_identified_and_erased, (photos,)),
        (a_camera_is_watched_and_its_events_arrive, ()),
        (the_readme_subscriber_prints_what_happens, (address,)),
    ]
    for step, arguments in steps:
        step(client, *arguments)
        print(f"ok: {step.__name__.replace('_', ' ')}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Tests a doorward daemon with a third-party gRPC client.")
    parser.add_argument("--address", default=os.environ.get("DOORWARD_ADDRESS"), help="HOST:PORT of a running daemon")
    parser.add_argument("--doorward", type=Path, help="the binary to start a daemon with")
    parser.add_argument("--models", type=Path, default=TREE / "models", help="the models directory for that daemon")
    parser.add_argument("--photos", type=Path, default=TREE / "tests/data/photos", help="where obama.jpg, obama2.jpg, biden.jpg lie")
    arguments = parser.parse_args()
    if not arguments.address and not arguments.doorward:
        parser.error("give --address HOST:PORT or --doorward BINARY")
    try:
        if arguments.doorward:
            with running_daemon(arguments.doorward, arguments.models) as address:
                run(address, arguments.photos)
        else:
            run(arguments.address, arguments.photos)
    except (Failed, grpc.RpcError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
