// Makes CASE.CODEC.kafkajs.batch in the current folder from CASE.txt (see make.py), with kafkajs 2.
// Run by hand, once, where kafkajs is installed:
//     NODE_PATH=.../node_modules node make.js
const fs = require('fs')
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0')
const Record = require('kafkajs/src/protocol/recordBatch/record/v0')

const field = s => {
  if (s === '-') return null
  const [digits, times] = s.slice(1).split('*')
  return Buffer.from(digits.repeat(Number(times || 1)), 'hex')
}

const make = async (name, codec, codecName) => {
  const items = []
  for (const line of fs.readFileSync(name + '.txt', 'utf8').trim().split('\n')) {
    const w = line.split(' ')
    if (w[0] === 'record')
      items.push({ timestamp: Number(w[1]), key: field(w[2]), value: field(w[3]), headers: {} })
    else items[items.length - 1].headers[field(w[1]).toString()] = field(w[2])
  }
  const first = items[0].timestamp
  const batch = await RecordBatch({
    compression: codec,
    firstTimestamp: first,
    maxTimestamp: Math.max(...items.map(i => i.timestamp)),
    lastOffsetDelta: items.length - 1,
    records: items.map((i, n) =>
      Record({ ...i, offsetDelta: n, timestampDelta: i.timestamp - first })),
  })
  fs.writeFileSync(`${name}.${codecName}.kafkajs.batch`, batch.buffer)
}

make('simple', 0, 'none').then(() => make('simple', 1, 'gzip'))
