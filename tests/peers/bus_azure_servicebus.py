"""The legacy Python client (azure-servicebus 0.21.1) against the emulator's bus."""

import os
import time

import requests
from azure.common import AzureHttpError
from azure.servicebus import Message, ServiceBusService
from report import READY, check, control

PORT = READY["bus"].rsplit(":", 1)[1]
SESSION = requests.Session()
SESSION.trust_env = False
SESSION.verify = os.environ["CA_FILE"]


def client(key=os.environ["BUS_KEY"], name=os.environ["BUS_KEY_NAME"]):
    return ServiceBusService(
        service_namespace="localhost",
        host_base=f":{PORT}",
        shared_access_key_name=name,
        shared_access_key_value=key,
        request_session=SESSION,
    )


def status_of(call, *arguments):
    try:
        call(*arguments)
    except AzureHttpError as error:
        return error.status_code
    return 200


bus = client()


def lock(queue="q1", timeout=5):
    message = bus.peek_lock_queue_message(queue, timeout=timeout)
    properties = message.broker_properties
    return message, properties.get("SequenceNumber") if properties else None, (properties or {}).get("LockToken")


with check("python: send and peek-lock bring body and properties back"):
    sent = Message(
        '{"order_id":"é1"}'.encode(),
        type="application/json",
        custom_properties={"origin": 'web "shop"', "count": 3, "urgent": True},
        broker_properties={"MessageId": "m-1", "Label": "order", "TimeToLive": 90},
    )
    bus.send_queue_message("q1", sent)
    message, sequence, token = lock()
    assert message.body == '{"order_id":"é1"}'.encode(), message.body
    got = message.broker_properties
    assert (got["MessageId"], got["Label"], got["DeliveryCount"], got["State"]) == ("m-1", "order", 1, "Active"), got
    assert got["TimeToLive"] == 90 and got["LockedUntilUtc"].endswith(" GMT"), got
    assert message.custom_properties["origin"] == 'web "shop"', message.custom_properties
    assert message.custom_properties["count"] == 3 and message.custom_properties["urgent"] is True

with check("python: renew, unlock, and the message comes again"):
    message.renew_lock()
    assert bus.peek_lock_queue_message("q1", timeout=0).body is None, "a locked message was delivered"
    message.unlock()
    message, sequence, token = lock()
    assert message.broker_properties["DeliveryCount"] == 2

with check("python: complete, and completing again is 404"):
    message.delete()
    assert status_of(bus.delete_queue_message, "q1", sequence, token) == 404
    assert status_of(bus.renew_lock_queue_message, "q1", sequence, token) == 404
    assert status_of(bus.unlock_queue_message, "q1", sequence, token) == 404

with check("python: an empty poll ends after its time without a message"):
    started = time.monotonic()
    assert bus.peek_lock_queue_message("q1", timeout=1).body is None
    assert time.monotonic() - started > 0.9

with check("python: batch"):
    bus.send_queue_message_batch(
        "q2",
        [
            Message("first", custom_properties={"n": 1}, broker_properties={"MessageId": "b-1"}),
            Message("zweite ü", broker_properties={"MessageId": "b-2", "TimeToLive": "60"}),
        ],
    )
    first, second = bus.read_delete_queue_message("q2", timeout=5), bus.read_delete_queue_message("q2", timeout=5)
    assert (first.body, second.body) == (b"first", "zweite ü".encode()), (first.body, second.body)
    assert first.custom_properties["n"] == "1" and second.broker_properties["MessageId"] == "b-2", first.custom_properties
    assert "LockToken" not in first.broker_properties

with check("python: receive-and-delete takes it for good"):
    bus.send_queue_message("q2", Message("gone"))
    assert bus.receive_queue_message("q2", peek_lock=False, timeout=5).body == b"gone"
    assert bus.receive_queue_message("q2", peek_lock=False, timeout=0).body is None

with check("python: topic and subscriptions"):
    control("PUT", "/bus/topics/news")
    for name in ["one", "two"]:
        control("PUT", f"/bus/topics/news/subscriptions/{name}")
    bus.send_topic_message("news", Message("to both"))
    for name in ["one", "two"]:
        message = bus.peek_lock_subscription_message("news", name, timeout=5)
        assert message.body == b"to both"
        message.delete()
        assert bus.read_delete_subscription_message("news", name, timeout=0).body is None

with check("python: after the last delivery it is in the dead-letter queue"):
    control("PUT", "/bus/queues/poison", {"max_delivery_count": 1})
    bus.send_queue_message("poison", Message("bad", broker_properties={"MessageId": "p"}))
    lock("poison")[0].unlock()
    assert bus.peek_lock_queue_message("poison", timeout=0).body is None
    dead = bus.read_delete_queue_message(bus.format_dead_letter_queue_name("poison"), timeout=5)
    assert dead.body == b"bad" and dead.custom_properties["deadletterreason"] == "MaxDeliveryCountExceeded"

with check("python: a lock that is lost settles nothing"):
    bus.send_queue_message("q2", Message("lost"))
    message, sequence, token = lock("q2")
    assert control("DELETE", "/bus/q2/locks")["dropped"] == 1
    assert status_of(bus.delete_queue_message, "q2", sequence, token) == 404
    again, sequence, token = lock("q2")
    assert again.body == b"lost" and again.broker_properties["DeliveryCount"] == 2
    bus.delete_queue_message("q2", sequence, token)

with check("python: event with a publisher"):
    bus.send_event("hub", '{"event":1}', device_id="box1")
    assert bus.read_delete_queue_message("hub", timeout=5).body == b'{"event":1}'

with check("python: wrong key and wrong rule are 401, an unknown queue is 410"):
    assert status_of(client(key="other").send_queue_message, "q1", Message("x")) == 401
    assert status_of(client(name="Nobody").send_queue_message, "q1", Message("x")) == 401
    assert status_of(bus.send_queue_message, "nowhere", Message("x")) == 410

with check("python: a message that is too large is 403"):
    assert status_of(bus.send_queue_message, "q1", Message(b"x" * (256 * 1024 + 1))) == 403

with check("python: a lock that ran out settles nothing, and the message comes again"):
    control("PUT", "/bus/queues/short", {"lock_ms": 700})
    bus.send_queue_message("short", Message("late"))
    message, sequence, token = lock("short")
    # Waits until the lock is over and the message is there again.
    again, sequence_again, token_again = lock("short", timeout=10)
    assert again.body == b"late" and again.broker_properties["DeliveryCount"] == 2 and sequence_again == sequence
    assert status_of(bus.delete_queue_message, "short", sequence, token) == 404
    bus.renew_lock_queue_message("short", sequence, token_again)
    bus.delete_queue_message("short", sequence, token_again)

with check("python: a topic that detects duplicates gives each subscription one copy, and settles each apart"):
    control("PUT", "/bus/topics/once", {"duplicate_window_ms": 60_000})
    for name in ["one", "two"]:
        control("PUT", f"/bus/topics/once/subscriptions/{name}", {"max_delivery_count": 2})
    for _ in range(3):
        bus.send_topic_message("once", Message("same", broker_properties={"MessageId": "same"}))
    first = bus.peek_lock_subscription_message("once", "one", timeout=5)
    assert bus.peek_lock_subscription_message("once", "one", timeout=0).body is None
    first.renew_lock()
    first.unlock()
    bus.peek_lock_subscription_message("once", "one", timeout=5).unlock()
    assert bus.peek_lock_subscription_message("once", "one", timeout=0).body is None
    dead = bus.format_dead_letter_subscription_name("one")
    assert bus.read_delete_subscription_message("once", dead, timeout=5).body == b"same"
    second = bus.peek_lock_subscription_message("once", "two", timeout=5)
    assert second.body == b"same" and second.broker_properties["DeliveryCount"] == 1
    second.delete()

with check("python: a throttled namespace says so"):
    control("POST", "/faults", {"fault": "throttle:2", "flow": "bus"})
    assert status_of(bus.send_queue_message, "q1", Message("x")) == 429
