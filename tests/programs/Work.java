import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;

/**
 * Threads that compute and leave garbage behind while the collector and the compiler work beside them. One line in
 * "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
 */
public final class Work {
    private static final int THREADS = 4;

    /** Sums of a map that is built of many small objects; its value is known beforehand. */
    private static long sum(int seed) {
        TreeMap<Integer, List<Long>> map = new TreeMap<>();
        for (int i = 0; i < 20000; i++) {
            map.computeIfAbsent((i * 7919) % 1009, k -> new ArrayList<>()).add((long) i * seed);
        }
        long sum = 0;
        for (List<Long> values : map.values()) {
            for (long v : values) {
                sum += v;
            }
        }
        return sum;
    }

    private static void check(boolean right, String what) {
        if (!right) {
            throw new IllegalStateException(what);
        }
    }

    public static void main(String[] args) throws Exception {
        Path progress = Path.of("progress");
        ExecutorService pool = Executors.newFixedThreadPool(THREADS);
        List<byte[]> kept = new ArrayList<>();
        int rounds = 0;
        while (rounds < 4 || !Files.exists(Path.of("finish"))) {
            rounds++;
            List<Future<Long>> sums = new ArrayList<>();
            for (int i = 0; i < 2 * THREADS; i++) {
                int seed = rounds * 100 + i;
                sums.add(pool.submit(() -> sum(seed)));
            }
            byte[] page = new byte[100000];
            java.util.Arrays.fill(page, (byte) rounds);
            kept.add(page);
            for (int i = 0; i < sums.size(); i++) {
                long want = 199990000L * (rounds * 100 + i);
                check(sums.get(i).get() == want, "round " + rounds + ", sum " + i);
            }
            Files.writeString(progress, rounds + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
        pool.shutdown();
        for (int i = 0; i < kept.size(); i++) {
            for (byte b : kept.get(i)) {
                check(b == (byte) (i + 1), "page " + i);
            }
        }
        List<String> lines = Files.readAllLines(progress);
        check(lines.size() == rounds, lines.size() + " lines in " + rounds + " rounds");
        for (int i = 0; i < rounds; i++) {
            check(lines.get(i).equals(String.valueOf(i + 1)), "line " + i);
        }
        System.out.println("rounds: " + rounds);
    }
}
