"""What a program of the tests runs to keep a model busy, and to see that every answer is right."""

LOAD = """
import threading, time

class Load:
    '''Threads that run a model, each one request after the other.'''

    def __init__(self, model, threads, pause_s=0.0):
        self.model, self.pause_s = model, pause_s
        self.answered, self.wrong, self.is_over = 0, [], threading.Event()
        self.threads = [
            threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        count = 0
        while not self.is_over.wait(self.pause_s):
            count += 1
            x = np.array([[number, count]], "f4")
            try:
                answer = self.model.run({"x": x})["y"].to_numpy()
            except BaseException as error:
                self.wrong.append(repr(error))
                return
            if not np.array_equal(answer, -x):
                self.wrong.append([x.tolist(), answer.tolist()])
            self.answered += 1

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong
        return self.answered
"""
