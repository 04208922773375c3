// Threads that build maps and strings, use direct buffers, and compress (memory of zlib's).
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.zip.DeflaterOutputStream;

public class Threads {
    static String work(int seed) throws Exception {
        var random = new Random(seed);
        var table = new TreeMap<String, List<Integer>>();
        var digest = MessageDigest.getInstance("SHA-256");
        for (int step = 0; step < 10_000; step++) {
            table.computeIfAbsent("key" + random.nextInt(2000), key -> new ArrayList<>()).add(step);
            if (step % 100 == 0) {
                var direct = ByteBuffer.allocateDirect(random.nextInt(4_000) + 1);
                while (direct.hasRemaining()) direct.put((byte) step);
                digest.update(direct.flip());
            }
            if (step % 1000 == 0) {
                var packed = new ByteArrayOutputStream();
                try (var out = new DeflaterOutputStream(packed)) {
                    out.write(table.toString().getBytes());
                }
                digest.update(packed.toByteArray());
            }
        }
        digest.update(table.toString().getBytes());
        return HexFormat.of().formatHex(digest.digest());
    }

    public static void main(String[] arguments) throws Exception {
        var pool = Executors.newFixedThreadPool(4);
        var results = new ArrayList<Future<String>>();
        for (int seed = 0; seed < 8; seed++) {
            int own = seed;
            results.add(pool.submit(() -> work(own)));
        }
        for (var result : results) System.out.println(result.get());
        pool.shutdown();
        for (int i = 0; i < 300; i++) {
            var thread = new Thread(() -> ByteBuffer.allocateDirect(1000).putInt(1));
            thread.start();
            thread.join();
        }
        var child = new ProcessBuilder("echo", "from a child").redirectErrorStream(true).start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println(child.waitFor());
    }
}
