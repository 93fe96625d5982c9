/* Makes CASE.CODEC.java.batch in the current folder from CASE.txt (see make.py), with Apache Kafka's
 * own client library. Run by hand, once, with kafka-clients 3.9 and the jars that it depends on
 * (snappy-java, lz4-java, zstd-jni, slf4j-api):
 *     java -cp 'JARS/*' Make.java */
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.TimestampType;

class Make {
    record Item(long timestamp, byte[] key, byte[] value, List<Header> headers) {}

    static byte[] field(String s) {
        if (s.equals("-"))
            return null;
        String[] parts = s.substring(1).split("\\*");
        int times = parts.length > 1 ? Integer.parseInt(parts[1]) : 1;
        return HexFormat.of().parseHex(parts[0].repeat(times));
    }

    static void make(String name, CompressionType codec) throws Exception {
        long producer = -1;
        short epoch = -1;
        int sequence = -1;
        boolean transactional = false;
        List<Item> items = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(name + ".txt"))) {
            String[] w = line.split(" ");
            if (w[0].equals("producer")) {
                producer = Long.parseLong(w[1]);
                epoch = Short.parseShort(w[2]);
                sequence = Integer.parseInt(w[3]);
                transactional = w.length > 4;
            } else if (w[0].equals("record")) {
                items.add(new Item(Long.parseLong(w[1]), field(w[2]), field(w[3]),
                    new ArrayList<>()));
            } else {
                String key = new String(field(w[1]), StandardCharsets.UTF_8);
                items.get(items.size() - 1).headers().add(new RecordHeader(key, field(w[2])));
            }
        }
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), (byte) 2,
            Compression.of(codec).build(), TimestampType.CREATE_TIME, 1000, -1, producer, epoch,
            sequence, transactional, 7);
        long offset = 1000;
        for (Item i : items)
            b.appendWithOffset(offset++, i.timestamp(), i.key(), i.value(),
                i.headers().toArray(new Header[0]));
        ByteBuffer out = b.build().buffer();
        byte[] bytes = new byte[out.remaining()];
        out.get(bytes);
        Files.write(Path.of(name + "." + codec.name + ".java.batch"), bytes);
    }

    public static void main(String[] args) throws Exception {
        for (String name : new String[] { "simple", "odd", "one", "many", "large" })
            for (CompressionType codec : CompressionType.values())
                if (name.equals("large") ? codec != CompressionType.NONE
                                         : codec == CompressionType.NONE || !name.equals("one"))
                    make(name, codec);
    }
}
