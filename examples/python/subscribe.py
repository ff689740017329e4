"""Opens the door for whom doorward identifies. No generated code: the server describes itself.

    pip install grpcio grpcio-reflection
    python subscribe.py 127.0.0.1:50051 [CURSOR_FILE]

With a file for the cursor, the next run goes on where this one ended.
"""

import os
import sys
import time

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, cursor_file = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
# Without keepalive a daemon whose machine lost its power would be waited for in silence.
keepalive = {"grpc.keepalive_time_ms": 20_000, "grpc.keepalive_timeout_ms": 10_000, "grpc.http2.max_pings_without_data": 0}
channel = grpc.insecure_channel(address, options=list(keepalive.items()))
events = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName("doorward.v1.EventService")
Request, Response = (GetMessageClass(t) for t in (events.methods_by_name["Subscribe"].input_type, events.methods_by_name["Subscribe"].output_type))
subscribe = channel.unary_stream(f"/{events.full_name}/Subscribe", Request.SerializeToString, Response.FromString)

cursor = ""  # How far we are: everything up to here was acted on, or is too late.
if cursor_file and os.path.exists(cursor_file):
    cursor = open(cursor_file).read()


def remember(reached):
    global cursor
    cursor = reached
    if cursor_file:
        with open(cursor_file + ".part", "w") as file:
            file.write(reached)
            file.flush()
            os.fsync(file.fileno())
        os.replace(cursor_file + ".part", cursor_file)


def running():
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1e6  # Goes on while this machine sleeps.


while True:
    request = Request(types=["EVENT_TYPE_IDENTIFIED", "EVENT_TYPE_REASSERTED"], **({"cursor": cursor} if cursor else {"now": {}}))
    ahead = float("-inf")  # How far the daemon's clock is ahead of `running`; delays on the way make it less.
    try:
        for response in subscribe(request):
            ahead = max(ahead, response.server_time.ToMicroseconds() - running())
            for event in response.events:
                # The door rule: act at most once for each event, so remember it first, and only while it is not too late.
                remember(event.cursor)
                if running() + ahead < event.actionable_until.ToMicroseconds():
                    print(f"open the door at {event.camera_id} for {event.subject.display_name or event.subject.id}", flush=True)
            remember(response.position.cursor)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise  # Such as OUT_OF_RANGE: what came next is no longer kept. Somebody should know.
        time.sleep(1)
