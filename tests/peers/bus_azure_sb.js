// The legacy Node client (azure-sb 0.11.2) against the emulator's bus.
"use strict";

const fs = require("fs");
const assert = require("assert");
const { promisify } = require("util");
const azure = require("azure-sb");

const ready = JSON.parse(fs.readFileSync(process.env.READY_FILE, "utf8"));

function client(key) {
  const bus = azure.createServiceBusService(
    `Endpoint=sb://${ready.bus}/;SharedAccessKeyName=${process.env.BUS_KEY_NAME};SharedAccessKey=${key}`
  );
  const call = (name) => promisify(bus[name]).bind(bus);
  return {
    send: call("sendQueueMessage"),
    sendTopic: call("sendTopicMessage"),
    receive: call("receiveQueueMessage"),
    receiveSubscription: call("receiveSubscriptionMessage"),
    complete: call("deleteMessage"),
    unlock: call("unlockMessage"),
    renew: call("renewLockForMessage"),
  };
}

async function check(name, body) {
  try {
    await body();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`FAILED ${name}: ${String((error && error.message) || error).replace(/\n/g, " ")}`);
  }
}

async function control(method, path, value) {
  const answer = await fetch(`${ready.control_url}/control${path}`, { method, body: value && JSON.stringify(value) });
  assert(answer.ok, `${method} ${path}: ${answer.status}`);
}

const lock = (bus, queue, seconds) => bus.receive(queue, { isPeekLock: true, timeoutIntervalInS: seconds });

async function main() {
  const bus = client(process.env.BUS_KEY);
  let message;

  await check("node: send and peek-lock bring body and properties back", async () => {
    await bus.send("q1", {
      body: '{"order_id":"n1"}',
      contentType: "application/json",
      brokerProperties: { MessageId: "n-1", TimeToLive: 90, Label: "order" },
      customProperties: { origin: "web", count: 3, urgent: true },
    });
    message = await lock(bus, "q1", 5);
    assert.strictEqual(message.body, '{"order_id":"n1"}');
    assert.strictEqual(message.contentType, "application/json");
    assert.strictEqual(message.brokerProperties.MessageId, "n-1");
    assert.strictEqual(message.brokerProperties.DeliveryCount, 1);
    assert.strictEqual(message.brokerProperties.TimeToLive, 90);
    assert.strictEqual(message.customProperties.origin, "web");
    assert.strictEqual(message.customProperties.count, 3);
    assert.strictEqual(message.customProperties.urgent, true);
  });

  await check("node: renew, unlock, and the message comes again", async () => {
    await bus.renew(message);
    await bus.unlock(message);
    message = await lock(bus, "q1", 5);
    assert.strictEqual(message.brokerProperties.DeliveryCount, 2);
  });

  await check("node: complete, and completing again is 404", async () => {
    await bus.complete(message);
    await assert.rejects(bus.complete(message), (error) => error.statusCode === 404);
  });

  await check("node: an empty poll", async () => {
    await assert.rejects(lock(bus, "q1", 1), (error) => /No messages to receive/.test(String(error)));
  });

  await check("node: receive-and-delete takes it for good", async () => {
    await bus.send("q1", "plain text");
    assert.strictEqual((await bus.receive("q1", { timeoutIntervalInS: 5 })).body, "plain text");
    await assert.rejects(bus.receive("q1", { timeoutIntervalInS: 1 }), (error) => /No messages/.test(String(error)));
  });

  await check("node: topic and subscription", async () => {
    await control("PUT", "/bus/topics/tidings");
    await control("PUT", "/bus/topics/tidings/subscriptions/all");
    await bus.sendTopic("tidings", { body: "to all" });
    const got = await bus.receiveSubscription("tidings", "all", { isPeekLock: true, timeoutIntervalInS: 5 });
    assert.strictEqual(got.body, "to all");
    await bus.complete(got);
  });

  await check("node: a wrong key is 401", async () => {
    await assert.rejects(client("b3RoZXI=").send("q1", "x"), (error) => error.statusCode === 401);
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
