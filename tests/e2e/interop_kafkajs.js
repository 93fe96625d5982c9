// kafkajs against a real server: node interop_kafkajs.js HOST:PORT. Prints "ok NAME" or "FAILED:
// NAME why" for each claim.
'use strict'
const assert = require('assert')
const crypto = require('crypto')
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')

const kafka = new Kafka({ clientId: 'interop', brokers: [process.argv[2]], logLevel: logLevel.ERROR })
const nameOf = what => `${what}-${crypto.randomBytes(4).toString('hex')}`

async function withClient(client, fn) {
  await client.connect()
  try {
    return await fn(client)
  } finally {
    await client.disconnect()
  }
}

const withAdmin = fn => withClient(kafka.admin(), fn)

async function create(topic, numPartitions) {
  await withAdmin(a => a.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, replicationFactor: 1 }] }))
  return topic
}

// n records of the topic through a consumer group.
function take(topic, groupId, n, fromBeginning = true) {
  return withClient(kafka.consumer({ groupId, sessionTimeout: 10000 }), async consumer => {
    const found = []
    await consumer.subscribe({ topics: [topic], fromBeginning })
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${found.length} of ${n} records`)), 30000)
      consumer.run({
        eachMessage: async ({ partition, message }) => {
          found.push({ partition, ...message })
          if (found.length === n) {
            clearTimeout(late)
            resolve()
          }
        }
      }).catch(reject)
    })
    return found
  })
}

const claims = {
  async 'admin creates, describes, grows and deletes a topic'() {
    const topic = await create(nameOf('js-admin'), 3)
    await withAdmin(async a => {
      const { topics } = await a.fetchTopicMetadata({ topics: [topic] })
      assert.strictEqual(topics[0].partitions.length, 3)
      await a.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
      assert.strictEqual((await a.fetchTopicOffsets(topic)).length, 5)
      await a.deleteTopics({ topics: [topic] })
      assert(!(await a.listTopics()).includes(topic))
    })
  },

  async 'records come back with keys, headers and nulls'() {
    const topic = await create(nameOf('js'), 2)
    const messages = Array.from({ length: 200 }, (_, i) => ({
      key: i % 7 ? `key ${i}` : null,
      value: i % 5 ? `value ${i}` : null,
      headers: { number: `${i}` },
      partition: i % 2
    }))
    for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
      await withClient(kafka.producer(), p => p.send({ topic, acks: -1, compression, messages }))
    }
    const found = await take(topic, nameOf('g'), 400)
    const text = b => (b === null ? null : b.toString())
    const seen = new Map()
    for (const m of found) {
      const sent = messages[Number(m.headers.number)]
      assert.deepStrictEqual([text(m.key), text(m.value), m.partition], [sent.key, sent.value, sent.partition])
      seen.set(m.headers.number.toString(), (seen.get(m.headers.number.toString()) || 0) + 1)
    }
    assert.strictEqual(seen.size, 200)
    assert([...seen.values()].every(n => n === 2))
  },

  async 'idempotent producer stores each record once'() {
    const topic = await create(nameOf('js-idem'), 1)
    await withClient(kafka.producer({ idempotent: true, maxInFlightRequests: 1 }), async p => {
      for (let i = 0; i < 20; i++) {
        await p.send({ topic, messages: Array.from({ length: 10 }, (_, j) => ({ value: `${i * 10 + j}` })) })
      }
    })
    const found = await take(topic, nameOf('g'), 200)
    assert.deepStrictEqual(found.map(m => Number(m.value)), Array.from({ length: 200 }, (_, i) => i))
    assert.deepStrictEqual(found.map(m => Number(m.offset)), Array.from({ length: 200 }, (_, i) => i))
  },

  async 'committed offsets are where the group goes on'() {
    const topic = await create(nameOf('js-commit'), 1)
    const groupId = nameOf('g')
    const send = values => withClient(kafka.producer(), p => p.send({ topic, messages: values.map(value => ({ value })) }))
    await send(['a', 'b', 'c'])
    assert.strictEqual((await take(topic, groupId, 3)).length, 3)
    await withAdmin(async a => {
      await a.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '2' }] })
      const offsets = await a.fetchOffsets({ groupId, topics: [topic] })
      assert.strictEqual(offsets[0].partitions[0].offset, '2')
    })
    await send(['d'])
    assert.deepStrictEqual((await take(topic, groupId, 2)).map(m => m.value.toString()), ['c', 'd'])
  },

  async 'offsets are found by time'() {
    const topic = await create(nameOf('js-time'), 1)
    const messages = Array.from({ length: 50 }, (_, i) => ({ value: `${i}`, timestamp: `${1700000000000 + i * 1000}` }))
    await withClient(kafka.producer(), p => p.send({ topic, messages }))
    await withAdmin(async a => {
      assert.strictEqual((await a.fetchTopicOffsetsByTimestamp(topic, 1700000000000 + 20500))[0].offset, '21')
    })
  }
}

async function main() {
  let failed = 0
  for (const [name, fn] of Object.entries(claims)) {
    try {
      await fn()
      console.log(`ok kafkajs: ${name}`)
    } catch (e) {
      failed++
      console.log(`FAILED: kafkajs: ${name}: ${e.message.split('\n')[0]}`)
      console.error(e)
    }
  }
  process.exit(failed ? 1 : 0)
}

main()
